"""What a search records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """What a search looked like at the end of an epoch.

    Attributes:
        epoch: epochs done; 0 is the state before training.
        step: steps done.
        probabilities: ``softmax(logits)`` by label.
        train_loss: mean task loss of the epoch's weight steps.
        val_loss: mean task loss of its architecture steps; None in the warm-up.
        settled_loss: what the best epoch is chosen by, see ``StrategyOptions``; None where it is not measured.
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
