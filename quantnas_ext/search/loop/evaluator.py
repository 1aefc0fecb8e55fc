"""The bilevel search on Hugging Face Accelerate, by NNI's evaluator interface."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nni.nas.evaluator import Evaluator
from torch import Tensor, nn
from torch.utils.data import Dataset

from quantnas_ext.arguments import whole_number
from quantnas_ext.errors import InputError, shown
from quantnas_ext.search.loop.bilevel import BilevelSearch
from quantnas_ext.search.loop.environment import check_environment, make_accelerator, plain_modes, without_settings
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.inputs import BoundStrategy, SearchData, check_callable, check_dataset
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.loop.sampling import FixedBatches
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.search.options import EvaluatorOptions, StrategyOptions, chosen, takes
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
        options: what to train with.
        loss: of outputs and targets; L1 by default.
        checkpoint: file that is written after every epoch, and that a later run starts from where it is present. It
            belongs to its options, network, loss and data, wherever these lie; another search refuses it. As the
            warm-up knows no costs, one from there also goes on with others.
        until: stop after so many epochs, for a later run to go on from the checkpoint; None for all.
        on_epoch: called on the main process with the record of every epoch, the state before the first included.
        changes: options by name, as in ``AccelerateEvaluator(train, validation, epochs=3, batch_size=4)``.

    Attributes:
        records: of all epochs, the state before the first included; once a search has ended.

    Raises:
        InputError: for an empty dataset or one of unknown length, an option that is none or not possible (see
            ``EvaluatorOptions``), or an argument of another type.
    """

    @takes(EvaluatorOptions)
    def __init__(
        self,
        train_dataset: Dataset[Any],
        validation_dataset: Dataset[Any],
        options: EvaluatorOptions | None = None,
        *,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        until: int | None = None,
        on_epoch: Callable[[EpochRecord], None] | None = None,
        **changes: Any,
    ) -> None:
        check_environment()
        self.options = chosen(EvaluatorOptions, options, changes)
        for name, dataset in (("training", train_dataset), ("validation", validation_dataset)):
            check_dataset(name, dataset)
        for name, function in (("loss", loss), ("on_epoch", on_epoch)):
            check_callable(name, function)
        if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
            raise InputError(f"checkpoint {shown(checkpoint)} is no path; name a file")
        self.data = SearchData(train_dataset, validation_dataset, nn.L1Loss() if loss is None else loss, self.options)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.until = None if until is None else whole_number("until", until, least=1, most=self.options.epochs)
        self.on_epoch = on_epoch
        self.records: list[EpochRecord] = []
        self._strategy: BoundStrategy | None = None

    def bind(
        self, context: SupernetContext, objective: SearchObjective, options: StrategyOptions
    ) -> AccelerateEvaluator:
        """Take over what a strategy searches with; called by ``QuantNAS``.

        Raises:
            InputError: when the warm-up leaves no epoch for the search.
        """
        warmup, epochs = options.warmup_epochs, self.options.epochs
        if warmup >= epochs:
            raise InputError(f"a warm-up of {warmup} epochs leaves nothing of {epochs} epochs; use a shorter one")
        self._strategy = BoundStrategy(context, objective, options)
        return self

    def training_batches(self) -> FixedBatches:
        """Some fixed batches of the data for the weights, to calibrate a derived network on."""
        return self.data.fixed_batches(self.data.train)

    def validation_batches(self) -> FixedBatches:
        """Some fixed batches of the data for the logits, to score on: crops that the search does not see."""
        return self.data.fixed_batches(self.data.validation)

    def evaluate(self, model: nn.Module) -> float:
        """Search on a supernet.

        Args:
            model: the supernet that the strategy has made.

        Returns:
            Mean validation loss of the last epoch, or with ``derive_from="best"`` the loss that the best epoch was
            chosen by.

        Raises:
            InputError: without a ``QuantNAS`` strategy, for a checkpoint of another search, or where the environment
                asks Accelerate for DeepSpeed, FSDP or the like.
            FloatingPointError: when the loss stops being a finite number.
        """
        if self._strategy is None:
            raise InputError(
                "AccelerateEvaluator searches; use it with the QuantNAS strategy, and CandidateEvaluator with others"
            )
        process_state()
        # Weights of candidates that a draw leaves out get no gradient, on any process.
        sampling = self._strategy.context.distribution.relaxation.samples
        accelerator = make_accelerator(self.options.mixed_precision, find_unused_parameters=sampling)
        with plain_modes(accelerator.device):
            with without_settings():
                search = BilevelSearch(
                    self.data, self._strategy, accelerator, model,
                    checkpoint=self.checkpoint, on_epoch=self.on_epoch, until=self.until,
                )  # fmt: skip
            result = search.run()
        self.records = search.progress.records
        return result
