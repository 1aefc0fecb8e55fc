"""How a search stands, in a few words beside its progress bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tqdm import tqdm

from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.search.loop.epoch_record import EpochRecord

BAR = "{l_bar}{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
"""tqdm's bar, short, so that a line has room for how the search stands; time spent and left before it."""


def standing(record: EpochRecord, goals: Sequence[Penalty | Budget], confidences: Mapping[str, float]) -> str:
    """Epoch, loss, expected costs against their budgets, entropy in nats, and the least decided block.

    Args:
        record: of the epoch.
        goals: of the search.
        confidences: largest joint probability of every block.
    """
    loss = record.train_loss if record.val_loss is None else record.val_loss
    said = [f"epoch {record.epoch}"] + ([] if loss is None else [f"loss {loss:.4f}"])
    budgets = {goal.cost.name: goal.maximum for goal in goals if isinstance(goal, Budget)}
    for name, value in record.expected_costs.items():
        of = f" of {tqdm.format_sizeof(budgets[name])}" if name in budgets else ""
        said.append(f"{name} {tqdm.format_sizeof(value)}{of}")
    said.append(f"entropy {record.entropy:.2f}")
    if confidences:
        block = min(confidences, key=lambda label: confidences[label])
        said.append(f"least decided {block} {confidences[block]:.2f}")
    return ", ".join(said)
