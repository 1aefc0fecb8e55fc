"""What a checkpoint belongs to: everything that the result of a search depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from torch import nn

from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.errors import shown
from quantnas_ext.search.loop.descriptions import DIGEST, describe, describe_dataset, describe_network, digest
from quantnas_ext.search.loop.environment import float_arithmetic
from quantnas_ext.search.loop.inputs import BoundStrategy, SearchData
from quantnas_ext.search.options import deciding


def search_fingerprint(
    data: SearchData, strategy: BoundStrategy, accelerator: Accelerator, model: nn.Module
) -> dict[str, Any]:
    """What must be the same for a search to go on, as plain values: every option that decides, and what it is about.

    Args:
        data: some of it is read.
        strategy: what it searches with.
        accelerator: of this process.
        model: the supernet.
    """
    return {
        **deciding(data.options),
        **deciding(strategy.options),
        "steps_per_epoch": data.steps_per_epoch,
        "processes": accelerator.num_processes,
        "arithmetic": float_arithmetic(),
        "loss": describe(data.loss),
        "data for the weights": describe_dataset(data.train, data.options.workers),
        "data for the logits": describe_dataset(data.validation, data.options.workers),
        "network": describe_network(model),
        "costs": {
            f"{goal.cost.name} ({place})": _describe(goal)
            for place, goal in enumerate(strategy.objective.goals, start=1)
        },
        "choices": {choice.label: list(choice.values) for choice in strategy.context.distribution.tree},
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> list[str]:
    """What a description has that is not so now, in words: "epochs 3 and not 4", "other loss: state"."""
    words = []
    for key in dict.fromkeys((*before, *now)):
        name = f"{place}{key}"
        if key not in before or key not in now:
            words.append(f"{'with' if key in before else 'without'} {name}")
            continue
        old, new = before[key], now[key]
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            words += differences(old, new, f"{name}: ")
        elif _short(old) and _short(new):
            words.append(f"{name} {_short(old)} and not {_short(new)}")
        else:
            words.append(f"other {name}")
    return words


def _short(value: Any) -> str:
    """A value in words; empty for what says nothing to a reader."""
    return "" if isinstance(value, str) and value.startswith(DIGEST) else shown(value)


def _describe(goal: Penalty | Budget) -> dict[str, Any]:
    numbers = {key: value for key, value in vars(goal).items() if key != "cost"}
    return {"kind": type(goal).__name__, **goal.cost.fingerprint(), "attributes": digest(goal.cost), **numbers}
