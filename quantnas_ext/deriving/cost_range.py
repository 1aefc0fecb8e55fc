"""What the architectures of a space can cost, before any search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.costs.cost import Cost, ExpectedCost
from quantnas_ext.costs.goals import Budget
from quantnas_ext.deriving.ranking import ArchitectureSelector
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import ChoiceTree


@dataclass(frozen=True)
class CostRange:
    """Where the costs of a space's architectures lie, of one kind, in its unit.

    Attributes:
        cost: what is counted.
        least: of the cheapest architecture.
        uniform: expected where all candidates of every choice are equally probable, as at the start of a search.
        largest: of the dearest architecture.
    """

    cost: Cost
    least: float
    uniform: float
    largest: float

    def said_of(self, budget: float) -> str:
        """Whether a budget can be met: a clause that says so with the number that decides it."""
        if budget < self.least:
            return f"cannot be met: no architecture costs less than {_shown(self.least)}"
        if budget >= self.largest:
            return f"limits nothing: no architecture costs more than {_shown(self.largest)}"
        times = f": it is {budget / self.least:.2f} times the least" if self.least else ""
        return f"can be met{times}"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.6g}"


def cost_ranges(space: ModelSpace, costs: Sequence[Cost]) -> list[CostRange]:
    """The range of every cost; the space and torch's random state are left as they are.

    Raises:
        InputError: when a cost cannot be counted, or a block has too many options to try them all.
    """
    tree = ChoiceTree.of(space)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        uniform = ArchitectureDistribution(tree)
        for logits in uniform.logits.values():
            logits.zero_()
        draw = uniform.settle()
        expected = [ExpectedCost(cost, space, uniform) for cost in costs]
        means = [float(cost(draw)) for cost in expected]
    # A budget that everything keeps: the selector then tells the range, and refuses nothing.
    unlimited = [Budget(cost, 1e300) for cost in costs]
    selector = ArchitectureSelector(tree, unlimited, [cost.terms for cost in expected])
    ranges = [selector.range(index) for index in range(len(costs))]
    return [
        CostRange(cost, least, mean, largest) for cost, mean, (least, largest) in zip(costs, means, ranges, strict=True)
    ]
