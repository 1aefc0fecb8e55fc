"""The penalties and budgets that a configuration asks for."""

from __future__ import annotations

import quantnas_ext.costs.latency.table  # noqa: F401 (registers its cost)
from quantnas_ext.costs.cost import COSTS
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.runs.config import CostConfig, SearchConfig

COST_INPUT = (1, 3, 32, 32)
"""Input for which costs are counted where none is named, as in the paper."""


def goals_of(config: SearchConfig) -> list[Penalty | Budget]:
    """A goal for BitOps always, and one for each other cost that the configuration names.

    A budget stands in place of the penalty. With a latency table but no goal for it, the latency has a penalty of
    weight 0, and so appears in the logs.

    Raises:
        InputError: when a cost is unknown, does not take its arguments, or has goals in two places; when the latency
            table is missing, damaged, or of another machine.
    """
    goals: list[Penalty | Budget] = []
    for wanted in stated_costs(config):
        if wanted.cost not in COSTS:
            raise unknown_name("cost", wanted.cost, COSTS)
        cost = COSTS[wanted.cost].configured(tuple(wanted.input or COST_INPUT), wanted.arguments)
        goals.append(Penalty(cost, wanted.penalty) if wanted.budget is None else Budget(cost, wanted.budget))
    return goals


def stated_costs(config: SearchConfig) -> list[CostConfig]:
    """The entries of ``costs``, after those for which the keys ``bitops_*``, ``bytes_*`` and ``latency_*`` stand."""
    listed = {wanted.cost for wanted in config.costs}
    short = [CostConfig("bitops", config.bitops_budget, config.bitops_penalty)]
    if config.bytes_penalty or config.bytes_budget is not None:
        short.append(CostConfig("bytes", config.bytes_budget, config.bytes_penalty))
    if config.latency_table is not None:
        table = {"table": config.latency_table}
        short.append(CostConfig("latency_ms", config.latency_budget, config.latency_penalty, arguments=table))
    for wanted in short:
        if wanted.cost in listed and (wanted.cost != "bitops" or wanted.budget is not None):
            raise InputError(f"'search.costs' names {wanted.cost}, and so do keys of its own; keep one of them")
    return [wanted for wanted in short if wanted.cost not in listed] + config.costs
