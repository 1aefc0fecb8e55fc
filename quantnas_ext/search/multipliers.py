"""Lagrange multipliers, by which the search itself meets its budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from quantnas_ext.costs.cost import ExpectedCost
from quantnas_ext.costs.goals import Budget
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution

LEAD = 0.75
"""Share of the architecture steps over which targets fall to their budgets."""
STEPS = 20
"""Most Newton steps of a projection; one is enough but where an architecture step led far away."""
FAR = 0.02
"""Distance to the interval, in shares of a target, from which one Newton step is not enough."""
LARGEST = 1.0
"""Most, in nats, that a Newton step raises a logit: where all is decided a cost hardly has a slope."""
NEAREST = 0.01
"""How near, in shares of a target, an expected cost is brought to the cheapest or dearest architecture's."""
TINY = 1e-12


class Multipliers(nn.Module):
    """Lagrange multipliers that lead expected costs along targets to their budgets.

    The target of a cost falls from its expectation at the start to the budget over the first ``LEAD`` of the search, in
    equal ratios but for a smooth start and end. After every architecture step the distribution p is replaced by the
    nearest one, in Kullback-Leibler divergence, whose expected cost is between the floor and the whole of its target:

        q(a) ~ p(a) exp(-lambda cost(a) / target),    lambda such that E_q[cost] is there

    Options of all blocks lose probability by one price, each as much as it costs, and the task alone decides what is
    worth the price: neither the size of the loss nor that of a step matters. This is mirror descent with a projection
    (Beck and Teboulle, "Mirror descent and nonlinear projected subgradient methods for convex optimization", Operations
    Research Letters 31, 2003). The price is found by Newton's method in lambda, mostly in one step: the logits move
    along the natural gradient of the expected cost, which is what an option adds to it, given that its choice has a
    meaning, less the mean over the options. Several budgets are projected on in turn.

    Args:
        budgets: the limits.
        floors: for each, the share l of its target that is to be used at least; 0 for none.
        costs: expectations of the budgets' costs.
        ranges: of these the least and the most that an architecture costs.

    Attributes:
        values: for each budget the sum of its prices so far, in nats for a cost of the size of the target.
        progress: share of the search that is done.
        starts: expected costs at the start.
    """

    values: Tensor
    progress: Tensor
    starts: Tensor

    def __init__(
        self,
        budgets: Sequence[Budget],
        floors: Sequence[float],
        costs: Sequence[ExpectedCost],
        ranges: Sequence[tuple[float, float]],
    ) -> None:
        super().__init__()
        self.maxima, self.floors, self._ranges = [budget.maximum for budget in budgets], list(floors), list(ranges)
        self._costs = tuple(costs)
        for name, size in (("values", len(budgets)), ("starts", len(budgets)), ("progress", ())):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))

    def targets(self) -> Tensor:
        """What the expected costs should be at most by now: ``[budgets]``, in the costs' units."""
        risen = (1 - torch.cos(math.pi * (self.progress / LEAD).clamp(max=1.0))) / 2
        maxima = torch.tensor(self.maxima, dtype=torch.float64, device=self.starts.device)
        return maxima * (self.starts / maxima) ** (1 - risen)

    @torch.no_grad()
    def update(self, distribution: ArchitectureDistribution, share: float) -> None:
        """Bring the expected costs to their targets after an architecture step.

        Args:
            distribution: its logits are moved.
            share: the step's share of the whole search.
        """
        if not self.starts.any():
            draw = distribution.softmax()
            self.starts.copy_(torch.stack([cost(draw) for cost in self._costs]).clamp_min(TINY))
        self.progress += share
        targets = self.targets()
        for _ in range(STEPS):
            if not any([self._project(distribution, targets[place], place) for place in range(len(targets))]):
                break

    def _project(self, distribution: ArchitectureDistribution, target: Tensor, place: int) -> bool:
        """Take one Newton step towards the interval; says whether it was far from there."""
        draw = distribution.softmax()
        probabilities = draw.probabilities.double().requires_grad_()
        with torch.enable_grad():
            relaxed = draw.relaxed._replace(probabilities=probabilities)
            used = self._costs[place](replace(draw, relaxed=relaxed)) / target
        (slopes,) = torch.autograd.grad(used, probabilities)
        reach = distribution.reach(draw).double()[:, None]
        worth = slopes / reach.clamp_min(TINY)
        advantage = (worth - (worth * probabilities).sum(dim=1, keepdim=True)) * (probabilities > 0)
        variance = (reach * probabilities * advantage.square()).sum()
        # The distance to the cheapest or dearest architecture dies away exponentially, so its logarithm is solved for.
        cheapest, dearest = self._ranges[place]
        end = torch.where(used > 1, cheapest, dearest) / target
        goal = used.clamp(self.floors[place], 1.0)
        before, after = used - end, goal - end
        price = (before / after.abs().clamp_min(NEAREST).copysign(after)).log() * before / variance.clamp_min(TINY)
        most = (-price.sign() * advantage).max() * price.abs()
        price = price * (LARGEST / most.clamp_min(TINY)).clamp(max=1.0)
        distribution.shift(-price * advantage)
        self.values[place] += price
        return bool((used - goal).abs() > FAR)
