"""What a search is given, and what it records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import Dataset

from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.loop.sampling import FIXED_BATCHES, FixedBatches
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.supernet.context import SupernetContext

DeriveFrom = Literal["last", "best"]
DERIVE_FROM: tuple[DeriveFrom, ...] = ("last", "best")


@dataclass(frozen=True)
class EpochRecord:
    """What a search looked like at the end of an epoch.

    Attributes:
        epoch: epochs done; 0 is the state before training.
        step: steps done.
        probabilities: ``softmax(logits)`` by label.
        train_loss: mean task loss of the epoch's weight steps.
        val_loss: mean task loss of its architecture steps; None in the warm-up.
        settled_loss: what the best epoch is chosen by, see ``AccelerateEvaluator``; None where it is not measured.
        expected_costs: expectation of every cost by name, in its unit.
        multipliers: the multiplier of every budget, by the name of its cost.
        entropy: sum of all blocks' joint entropies, nats.
        entropy_weight: its weight at the end of the epoch.
    """

    epoch: int
    step: int
    probabilities: dict[str, list[float]]
    train_loss: float | None
    val_loss: float | None
    settled_loss: float | None
    expected_costs: dict[str, float]
    multipliers: dict[str, float]
    entropy: float
    entropy_weight: float


@dataclass(frozen=True)
class SearchPlan:
    """What an evaluator brings to a search: data and training (see ``AccelerateEvaluator`` for the meanings).

    ``steps`` are those that were asked for; ``steps_per_epoch`` says how many an epoch has.
    """

    train_dataset: Dataset[Any]
    validation_dataset: Dataset[Any]
    epochs: int
    steps: int | None
    batch_size: int
    loss: Callable[[Tensor, Tensor], Tensor]
    learning_rate: float
    weight_decay: float
    seed: int
    workers: int
    channels_last: bool
    checkpoint: Path | None
    on_epoch: Callable[[EpochRecord], None] | None
    derive_from: DeriveFrom

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch: those that were asked for, or one pass over the training data by all processes together.

        Joins the processes together, as how many they are decides it.
        """
        if self.steps is not None:
            return self.steps
        together = self.batch_size * process_state().num_processes
        return max(1, len(self.train_dataset) // together)  # type: ignore[arg-type]

    def fixed_batches(self, dataset: Dataset[Any]) -> FixedBatches:
        """Batches of crops that the search does not see, for scores beside it: at most an epoch's."""
        batches = min(self.steps_per_epoch * process_state().num_processes, FIXED_BATCHES)
        return FixedBatches(dataset, self.batch_size, batches, seed=self.seed, epoch=self.epochs, workers=self.workers)


@dataclass(frozen=True)
class SearchSettings:
    """What a strategy asks of an evaluator (see ``QuantNAS`` for the meanings)."""

    context: SupernetContext
    objective: SearchObjective
    architecture_learning_rate: float
    warmup_epochs: int
    gradient_clip: float | None
