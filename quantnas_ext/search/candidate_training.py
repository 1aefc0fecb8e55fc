"""Training the candidates of a multi-trial search, one after the other."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import nni
import torch
from accelerate import Accelerator
from accelerate.utils import convert_to_fp32
from nni.nas.evaluator import Evaluator
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset

from quantnas_ext.deriving.calibration import score
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import give_steps_a_group
from quantnas_ext.search.loop.environment import make_accelerator, plain_modes, without_settings
from quantnas_ext.search.loop.inputs import SearchData, check_callable, check_dataset
from quantnas_ext.search.loop.phases import seeded
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.loop.sampling import EpochSampler
from quantnas_ext.search.options import EvaluatorOptions, chosen, takes


class CandidateEvaluator(Evaluator):
    """Trains every candidate that a multi-trial strategy of NNI gives it, with its real quantizers, and scores it.

    Each candidate starts from the weights that it is given, in a copy, and sees the same data in the same order. After
    every epoch NNI gets an intermediate result, and in the end the final one. Runs in one process, on its accelerator.

    Args:
        train_dataset: items are (input, target) tensors. One with ``set_epoch`` is told the epoch.
        validation_dataset: what is scored on, as a whole.
        options: what to train with: Adam, whose learning rate falls along a cosine.
        loss: of outputs and targets; L1 by default.
        metric: likewise, a scalar of which more is better; the negative loss by default.
        changes: options by name, as in ``CandidateEvaluator(train, validation, epochs=3, batch_size=4)``.

    Attributes:
        best_score: of the candidates so far; minus infinity before the first.
        best_network: the candidate of that score, trained; None before the first.

    Raises:
        InputError: as ``AccelerateEvaluator``.
    """

    @takes(EvaluatorOptions)
    def __init__(
        self,
        train_dataset: Dataset[Any],
        validation_dataset: Dataset[Any],
        options: EvaluatorOptions | None = None,
        *,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        metric: Callable[[Tensor, Tensor], Tensor] | None = None,
        **changes: Any,
    ) -> None:
        self.options = chosen(EvaluatorOptions, options, changes)
        check_dataset("training", train_dataset)
        check_dataset("validation", validation_dataset)
        for name, function in (("loss", loss), ("metric", metric)):
            check_callable(name, function)
        of = nn.L1Loss() if loss is None else loss
        self.data = SearchData(train_dataset, validation_dataset, of, self.options)
        self.metric = metric or (lambda outputs, targets: -of(outputs, targets))
        self.best_score = -math.inf
        self.best_network: nn.Module | None = None

    def evaluate(self, model: nn.Module) -> float:
        """Train a candidate and score it.

        Args:
            model: a concrete network; not changed.

        Raises:
            InputError: in several processes, or where nothing of the network learns.
            FloatingPointError: when the score is not a finite number.
        """
        if process_state().num_processes > 1:
            raise InputError("candidates are trained in one process; start the program without accelerate launch")
        accelerator = make_accelerator(self.options.mixed_precision, find_unused_parameters=False)
        with plain_modes(accelerator.device), without_settings():
            network = copy.deepcopy(model).to(accelerator.device)
            result = self._train(network, accelerator)
        if not math.isfinite(result):
            raise FloatingPointError("a candidate's score is not a finite number; lower the learning rate")
        if result > self.best_score:
            self.best_score, self.best_network = result, network
        if nni.get_current_parameter() is not None:
            nni.report_final_result(result)
        return result

    def _train(self, network: nn.Module, accelerator: Accelerator) -> float:
        options, data, steps = self.options, self.data, self.data.steps_per_epoch
        if options.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not weights:
            raise InputError("the candidate has no weight that learns; leave some without requires_grad_(False)")
        optimizer = optim.Adam(weights, options.weight_learning_rate, weight_decay=options.weight_decay)
        give_steps_a_group(optimizer, network)
        scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * steps)
        sampler = EpochSampler(len(data.train), steps * options.batch_size, options.seed)  # type: ignore[arg-type]
        loader = DataLoader(data.train, options.batch_size, sampler=sampler, num_workers=options.workers)
        held_out = DataLoader(data.validation, options.batch_size, num_workers=options.workers)
        result = math.nan
        for epoch in range(options.epochs):
            sampler.set_epoch(epoch)
            if hasattr(data.train, "set_epoch"):
                data.train.set_epoch(epoch)
            network.train()
            with seeded(options.seed, epoch, accelerator):
                for inputs, targets in loader:
                    with accelerator.autocast():
                        outputs = convert_to_fp32(network(inputs.to(accelerator.device)))
                    optimizer.zero_grad()
                    data.loss(outputs, targets.to(accelerator.device)).backward()
                    optimizer.step()
                    scheduler.step()
            result = score(network, held_out, {"metric": self.metric})["metric"]
            if nni.get_current_parameter() is not None and epoch < options.epochs - 1:
                nni.report_intermediate_result(result)
        network.eval()
        return result
