"""The penalties and budgets that a configuration asks for."""

from __future__ import annotations

from quantnas_ext.costs.cost import BitOps, Cost, ParameterBytes
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.costs.latency.table import LatencyTable
from quantnas_ext.runs.config import SearchConfig

COST_INPUT = (1, 3, 32, 32)
"""Input for which BitOps are counted, as in the paper."""


def goals_of(config: SearchConfig) -> list[Penalty | Budget]:
    """A goal for BitOps always, and one for each other cost that the configuration names.

    A budget stands in place of the penalty. With a latency table but no goal for it, the latency has a penalty of
    weight 0, and so appears in the logs.

    Raises:
        InputError: when the latency table is missing, damaged, or of another machine.
    """
    wanted: list[tuple[Cost, float, float | None]] = [(BitOps(COST_INPUT), config.bitops_penalty, config.bitops_budget)]
    if config.bytes_penalty or config.bytes_budget is not None:
        wanted.append((ParameterBytes(COST_INPUT), config.bytes_penalty, config.bytes_budget))
    if config.latency_table is not None:
        wanted.append((LatencyTable.load(config.latency_table), config.latency_penalty, config.latency_budget))
    return [Penalty(cost, weight) if maximum is None else Budget(cost, maximum) for cost, weight, maximum in wanted]
