"""The bilevel search on Hugging Face Accelerate, by NNI's evaluator interface."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from torch import Tensor, nn
from torch.utils.data import Dataset

from quantnas_ext.arguments import flag, name_among, real_number, whole_number
from quantnas_ext.errors import InputError, shown
from quantnas_ext.search.loop.bilevel import BilevelSearch
from quantnas_ext.search.loop.environment import check_environment, make_accelerator, plain_modes, without_settings
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.loop.sampling import FixedBatches
from quantnas_ext.search.loop.settings import DERIVE_FROM, DeriveFrom, EpochRecord, SearchPlan, SearchSettings
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.supernet.context import SupernetContext


class AccelerateEvaluator(Evaluator):
    """Runs the first-order bilevel search of a ``QuantNAS`` strategy on Accelerate.

    In every step the logits take a step on a validation batch, then the weights one on a training batch (DARTS, Liu et
    al., ICLR 2019). Random numbers, data order and learning rate are functions of (seed, process, epoch), so a search
    that is interrupted and started again goes on exactly as it would have. ``accelerate launch`` and its configuration
    file say which devices and processes there are; all else is said by the arguments.

    Args:
        train_dataset: for the weights; items are (input, target) tensors. One with ``set_epoch`` is told the epoch.
        validation_dataset: likewise, for the logits; disjoint from the former.
        epochs: passes to make.
        batch_size: samples in a batch of one process. With N processes a step sees N such batches, of which gradients
            are averaged: it is the step that one process makes with a batch N times as large.
        steps_per_epoch: steps in an epoch; by default as many as make one pass over ``train_dataset`` by all processes
            together, so that N processes take an N-th of the steps of one (at least one step: a dataset that does not
            fill it is gone through again).
        loss: of outputs and targets; L1 by default.
        learning_rate: Adam's for the weights, at the start of a cosine to zero; the same for any number of processes.
        weight_decay: Adam's for the weights.
        seed: of data order and noise.
        workers: processes that load data.
        mixed_precision: ``"no"`` or ``"bf16"``.
        channels_last: keep images and kernels with their channels last, which most convolutions prefer.
        checkpoint: file that is written after every epoch, and that a later run starts from where it is present. It
            belongs to its settings, network, loss and data, wherever these lie; another search refuses it.
        on_epoch: called on the main process with the record of every epoch, the state before the first included.
        derive_from: ``"last"``, or ``"best"``: after the search, logits and weights are those of the epoch after the
            warm-up in whose end the distribution itself, without the noise of a relaxation, had the lowest validation
            loss. It is measured with quantization noise on the same crops every time, which takes at most a sixth more
            time: at most an epoch's steps, and ``FIXED_BATCHES``, forward only.

    Raises:
        InputError: for an empty dataset or one of unknown length, a number out of its range, an unknown mixed precision
            or epoch to derive from, or an argument of another type.
    """

    def __init__(
        self,
        train_dataset: Dataset[Any],
        validation_dataset: Dataset[Any],
        *,
        epochs: int,
        batch_size: int,
        steps_per_epoch: int | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 3e-8,
        seed: int = 0,
        workers: int = 0,
        mixed_precision: str = "no",
        channels_last: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        on_epoch: Callable[[EpochRecord], None] | None = None,
        derive_from: DeriveFrom = "last",
    ) -> None:
        check_environment()
        steps = None if steps_per_epoch is None else whole_number("steps_per_epoch", steps_per_epoch, least=1)
        for name, dataset in (("training", train_dataset), ("validation", validation_dataset)):
            _check_dataset(name, dataset)
        for name, function in (("loss", loss), ("on_epoch", on_epoch)):
            if function is not None and not callable(function):
                raise InputError(f"{name} {shown(function)} cannot be called; give a function")
        if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
            raise InputError(f"checkpoint {shown(checkpoint)} is no path; name a file")
        self.plan = SearchPlan(
            train_dataset=train_dataset,
            validation_dataset=validation_dataset,
            epochs=whole_number("epochs", epochs, least=1),
            steps=steps,
            batch_size=whole_number("batch_size", batch_size, least=1),
            loss=nn.L1Loss() if loss is None else loss,
            learning_rate=real_number("learning_rate", learning_rate, above=0),
            weight_decay=real_number("weight_decay", weight_decay, least=0),
            seed=whole_number("seed", seed, least=0, most=2**32 - 1),
            workers=whole_number("workers", workers, least=0),
            channels_last=flag("channels_last", channels_last),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            on_epoch=on_epoch,
            derive_from=name_among("epoch to derive from:", derive_from, DERIVE_FROM),
        )
        self.mixed_precision: str = name_among("mixed precision of a search:", mixed_precision, ("no", "bf16"))
        self._settings: SearchSettings | None = None

    def bind(
        self,
        context: SupernetContext,
        objective: SearchObjective,
        *,
        architecture_learning_rate: float,
        warmup_epochs: int,
        gradient_clip: float | None,
        derive_from: DeriveFrom = "last",
    ) -> AccelerateEvaluator:
        """Take over what a strategy searches with; called by ``QuantNAS``.

        The best epoch is derived from where either of them asks for it.

        Raises:
            InputError: when the warm-up leaves no epoch for the search.
        """
        if warmup_epochs >= self.plan.epochs:
            raise InputError(
                f"a warm-up of {warmup_epochs} epochs leaves nothing of {self.plan.epochs} epochs; use a shorter one"
            )
        if derive_from == "best":
            self.plan = replace(self.plan, derive_from=derive_from)
        self._settings = SearchSettings(context, objective, architecture_learning_rate, warmup_epochs, gradient_clip)
        return self

    def training_batches(self) -> FixedBatches:
        """Some fixed batches of the data for the weights, to calibrate a derived network on."""
        return self.plan.fixed_batches(self.plan.train_dataset)

    def validation_batches(self) -> FixedBatches:
        """Some fixed batches of the data for the logits, to score on: crops that the search does not see."""
        return self.plan.fixed_batches(self.plan.validation_dataset)

    def evaluate(self, model: nn.Module) -> float:
        """Search on a supernet.

        Args:
            model: the supernet that the strategy has made.

        Returns:
            Mean validation loss of the last epoch, or with ``derive_from="best"`` the loss that the best epoch was
            chosen by; NNI gets it as the final result.

        Raises:
            InputError: without a ``QuantNAS`` strategy, for a checkpoint of another search, or where the environment
                asks Accelerate for DeepSpeed, FSDP or the like.
            FloatingPointError: when the loss stops being a finite number.
        """
        if self._settings is None:
            raise InputError("AccelerateEvaluator searches; use it with the QuantNAS strategy")
        process_state()
        # Weights of candidates that a draw leaves out get no gradient, on any process.
        sampling = self._settings.context.distribution.relaxation.samples
        accelerator = make_accelerator(self.mixed_precision, find_unused_parameters=sampling)
        with plain_modes(accelerator.device):
            with without_settings():
                search = BilevelSearch(self.plan, self._settings, accelerator, model)
            result = search.run()
        if nni.get_current_parameter() is not None:
            nni.report_final_result(result)
        return result


def _check_dataset(name: str, dataset: object) -> None:
    """Refuse data that cannot be gone through by index.

    Raises:
        InputError: naming the part of the search data.
    """
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InputError(
            f"the {name} part of the search data, {shown(dataset)}, has no length or no items by index; give a dataset "
            "with __len__ and __getitem__"
        )
    try:
        length = len(dataset)
    except TypeError as error:  # torch's IterableDataset may have the method and no length
        raise InputError(f"the {name} part of the search data has no length: {error}") from error
    if length < 1:
        raise InputError(f"the {name} part of the search data is empty; give it at least one image")
