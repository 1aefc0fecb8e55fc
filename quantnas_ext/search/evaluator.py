"""The bilevel search on Hugging Face Accelerate, by NNI's evaluator interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nni
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from nni.nas.evaluator import Evaluator
from torch import Tensor, nn
from torch.utils.data import Dataset

from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.search.bilevel import BilevelSearch
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.search.processes import process_state
from quantnas_ext.search.sampling import FixedBatches
from quantnas_ext.search.search_plan import DERIVE_FROM, DeriveFrom, EpochRecord, SearchPlan, SearchSettings
from quantnas_ext.search.supernet_context import SupernetContext


class AccelerateEvaluator(Evaluator):
    """Runs the first-order bilevel search of a ``QuantNAS`` strategy on Accelerate.

    In every step the logits take a step on a validation batch, then the weights one on a training batch (DARTS, Liu et
    al., ICLR 2019). Random numbers, data order and learning rate are functions of (seed, process, epoch), so a search
    that is interrupted and started again goes on exactly as it would have.

    Args:
        train_dataset: for the weights; items are (input, target) tensors. One with ``set_epoch`` is told the epoch.
        validation_dataset: likewise, for the logits; disjoint from the former.
        epochs: passes to make.
        batch_size: samples in a batch of one process.
        steps_per_epoch: batches an epoch; by default as many as ``train_dataset`` fills.
        loss: of outputs and targets; L1 by default.
        learning_rate: Adam's for the weights, at the start of a cosine to zero.
        weight_decay: Adam's for the weights.
        seed: of data order and noise.
        workers: processes that load data.
        mixed_precision: ``"no"`` or ``"bf16"``.
        channels_last: keep images and kernels with their channels last, which most convolutions prefer.
        checkpoint: file that is written after every epoch, and that a later run starts from where it is present.
        on_epoch: called on the main process with the record of every epoch, the state before the first included.
        derive_from: ``"last"``, or ``"best"``: after the search, logits and weights are those of the epoch after the
            warm-up in whose end the distribution itself, without the noise of a relaxation, had the lowest validation
            loss. It is measured with quantization noise on the same crops every time, which takes at most a sixth more
            time: at most an epoch's steps, and ``FIXED_BATCHES``, forward only.

    Raises:
        InputError: for an empty dataset or one that does not fill a batch, or an unknown mixed precision or epoch to
            derive from.
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
        checkpoint: Path | None = None,
        on_epoch: Callable[[EpochRecord], None] | None = None,
        derive_from: DeriveFrom = "last",
    ) -> None:
        for name, value in (("epochs", epochs), ("batch_size", batch_size), ("steps_per_epoch", steps_per_epoch)):
            if value is not None and value < 1:
                raise InputError(f"{name} {value!r} of a search is not possible; use at least 1")
        if mixed_precision not in ("no", "bf16"):
            raise InputError(f"mixed precision {mixed_precision!r} is not supported in a search; use 'no' or 'bf16'")
        if derive_from not in DERIVE_FROM:
            raise unknown_name("epoch to derive from:", derive_from, DERIVE_FROM)
        for name, dataset in (("training", train_dataset), ("validation", validation_dataset)):
            if len(dataset) < 1:  # type: ignore[arg-type]
                raise InputError(f"the {name} part of the search data is empty; give it at least one image")
        self.plan = SearchPlan(
            train_dataset=train_dataset,
            validation_dataset=validation_dataset,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch or max(1, len(train_dataset) // batch_size),  # type: ignore[arg-type]
            batch_size=batch_size,
            loss=loss or nn.L1Loss(),
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            seed=seed,
            workers=workers,
            channels_last=channels_last,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            derive_from=derive_from,
        )
        self.mixed_precision = mixed_precision
        self._settings: SearchSettings | None = None

    def bind(
        self,
        context: SupernetContext,
        objective: SearchObjective,
        *,
        architecture_learning_rate: float,
        warmup_epochs: int,
        gradient_clip: float | None,
    ) -> AccelerateEvaluator:
        """Take over what a strategy searches with; called by ``QuantNAS``.

        Raises:
            InputError: when the warm-up leaves no epoch for the search.
        """
        if warmup_epochs >= self.plan.epochs:
            raise InputError(
                f"a warm-up of {warmup_epochs} epochs leaves nothing of {self.plan.epochs} epochs; use a shorter one"
            )
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
            InputError: without a ``QuantNAS`` strategy, or for a checkpoint of another search.
            FloatingPointError: when the loss stops being a finite number.
        """
        if self._settings is None:
            raise InputError("AccelerateEvaluator searches; use it with the QuantNAS strategy")
        process_state()
        AcceleratorState._reset_state()  # an earlier search of this process may have had another precision
        # Weights of candidates that a draw leaves out get no gradient, on any process.
        sampling = self._settings.context.distribution.relaxation.samples
        handlers = [DistributedDataParallelKwargs(find_unused_parameters=sampling)]
        accelerator = Accelerator(mixed_precision=self.mixed_precision, kwargs_handlers=handlers)
        result = BilevelSearch(self.plan, self._settings, accelerator, model).run()
        if nni.get_current_parameter() is not None:
            nni.report_final_result(result)
        return result
