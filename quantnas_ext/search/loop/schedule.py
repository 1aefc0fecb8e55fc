"""Where in a search a step stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The steps of a search, counted from 0 through all its epochs.

    Attributes:
        epochs: warm-up included.
        steps_per_epoch: steps in each.
        warmup_epochs: epochs at the start in which only the weights are trained.
    """

    epochs: int
    steps_per_epoch: int
    warmup_epochs: int

    @property
    def steps(self) -> int:
        """All steps of the search."""
        return self.epochs * self.steps_per_epoch

    @property
    def searching_epochs(self) -> int:
        """Epochs behind the warm-up."""
        return self.epochs - self.warmup_epochs

    @property
    def share(self) -> float:
        """A step's share of all those behind the warm-up."""
        return 1 / (self.searching_epochs * self.steps_per_epoch)

    def searching(self, step: int) -> bool:
        """Whether a step has an architecture phase."""
        return step >= self.warmup_epochs * self.steps_per_epoch

    def time(self, step: int) -> float:
        """Epochs since the warm-up ended; fractions are steps within an epoch."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return epoch - self.warmup_epochs + index / self.steps_per_epoch

    def progress(self, step: int) -> float:
        """Share of the steps behind the warm-up that is done: 0 at the first one, 1 at the last."""
        warmup = self.warmup_epochs * self.steps_per_epoch
        return (step - warmup) / max(1, self.steps - warmup - 1)
