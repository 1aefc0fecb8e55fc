"""What a search is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from quantnas_ext.errors import InputError, shown
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.loop.sampling import FIXED_BATCHES, FixedBatches
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.search.options import EvaluatorOptions, StrategyOptions
from quantnas_ext.supernet.context import SupernetContext


@dataclass(frozen=True)
class SearchData:
    """The data of a search, and how it goes through them.

    Attributes:
        train: for the weights; items are (input, target) tensors.
        validation: likewise, for the logits.
        loss: of outputs and targets.
        options: of the evaluator.
    """

    train: Dataset[Any]
    validation: Dataset[Any]
    loss: Callable[[Tensor, Tensor], Tensor]
    options: EvaluatorOptions

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch: those that were asked for, or one pass over the training data by all processes together.

        Joins the processes together, as how many they are decides it.
        """
        if self.options.steps_per_epoch is not None:
            return self.options.steps_per_epoch
        together = self.options.batch_size * process_state().num_processes
        return max(1, len(self.train) // together)  # type: ignore[arg-type]

    def fixed_batches(self, dataset: Dataset[Any]) -> FixedBatches:
        """Batches of crops that the search does not see, for scores beside it: at most an epoch's."""
        options, batches = self.options, min(self.steps_per_epoch * process_state().num_processes, FIXED_BATCHES)
        return FixedBatches(
            dataset, options.batch_size, batches, seed=options.seed, epoch=options.epochs, workers=options.workers
        )


@dataclass(frozen=True)
class BoundStrategy:
    """What a strategy brings to a search.

    Attributes:
        context: of its supernet.
        objective: of the architecture step.
        options: of the strategy.
    """

    context: SupernetContext
    objective: SearchObjective
    options: StrategyOptions


def check_callable(name: str, function: object) -> None:
    """Refuse what cannot be called in place of a function; None stands for none.

    Raises:
        InputError: naming the argument.
    """
    if function is not None and not callable(function):
        raise InputError(f"{name} {shown(function)} cannot be called; give a function")


def check_dataset(name: str, dataset: object) -> None:
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
