"""What the architecture step of a search minimises, and which architecture it ends with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from quantnas_ext.arguments import whole_number
from quantnas_ext.costs.cost import Cost, ExpectedCost
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.deriving.ranking import ArchitectureSelector
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution, Draw
from quantnas_ext.distribution.regularizers import Regularizer, regularization
from quantnas_ext.errors import InputError
from quantnas_ext.search.multipliers import Multipliers


def entropy_weight(maximum: float, t: float, epochs: int) -> float:
    """Weight of the entropy term (or another regularizer), rising late: ``maximum * t / (n - 1) * l(t)``.

    ``l(t) = 0`` for ``t < q = n // 4`` and ``ln(t - q + 2) / ln(n - q + 1)`` after that, so the weight reaches its
    maximum in the last epoch. Source: Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024).

    Args:
        maximum: mu_max, the weight at the end.
        t: epochs since the warm-up ended, from 0; fractions are steps within an epoch.
        epochs: n, the number of epochs after the warm-up.

    Returns:
        The weight; never more than ``maximum`` in size, also within the last epoch.

    Raises:
        InputError: for less than one epoch.
    """
    if epochs <= 1:
        whole_number("a number of epochs", epochs, least=1)
        return maximum
    t = min(t, epochs - 1)
    quarter = epochs // 4
    if t < quarter:
        return 0.0
    return maximum * t / (epochs - 1) * math.log(t - quarter + 2) / math.log(epochs - quarter + 1)


class SearchObjective(nn.Module):
    """``task loss + sum eta E[cost] / cost_ref + mu(t) * regularizer``, on live probabilities, within the budgets.

    Penalties and entropy see the draw of the forward pass. Budgets are no part of the loss: ``update`` brings the
    distribution itself, whose arg max is derived, back to them after every step.

    Args:
        goals: penalties, whose ``cost_ref`` is the expected cost of the uniform distribution, and budgets, for which
            see ``Multipliers``.
        entropy: largest weight mu of the regularizer.
        model: the space or supernet whose costs are counted.
        distribution: over its choices.
        regularizer: what mu weighs, see ``regularization``; the summed joint entropies of all blocks by default.

    Raises:
        InputError: when the costs of the space cannot be counted, a penalty's is 0 everywhere or no architecture keeps
            the budgets.
    """

    def __init__(
        self,
        goals: Sequence[Penalty | Budget],
        entropy: float,
        model: nn.Module,
        distribution: ArchitectureDistribution,
        regularizer: Regularizer = "entropy",
    ) -> None:
        super().__init__()
        self.regularizer = regularizer
        self.goals = tuple(goals)
        self._names = _names([goal.cost for goal in self.goals])
        self.entropy = entropy
        self.costs = nn.ModuleList(ExpectedCost(goal.cost, model, distribution) for goal in goals)
        self._distribution = (distribution,)
        limited = [
            (goal, cast(ExpectedCost, cost))
            for goal, cost in zip(self.goals, self.costs, strict=True)
            if isinstance(goal, Budget)
        ]
        budgets = [goal for goal, _ in limited]
        # Only where block by block is not enough: it tries all combinations within a block, which can be many.
        self.selector: ArchitectureSelector | None = None
        if budgets or any(choice.owners for choice in distribution.tree):
            self.selector = ArchitectureSelector(distribution.tree, budgets, [cost.terms for _, cost in limited])
        self.multipliers: Multipliers | None = None
        if budgets and self.selector is not None:
            ranges = [self.selector.range(place) for place in range(len(budgets))]
            self.multipliers = Multipliers(budgets, self.selector.floors, [cost for _, cost in limited], ranges)
        with torch.no_grad():
            uniform = _uniform(distribution)
            self.references = [float(cost(uniform)) for cost in self.costs]
        for goal, reference in zip(self.goals, self.references, strict=True):
            if isinstance(goal, Penalty) and not (math.isfinite(reference) and reference):
                raise InputError(
                    f"a penalty on {goal.cost.name} needs a space in which something has such a cost, but it is "
                    f"{reference:g} on average; leave the penalty out"
                )

    def expected_costs(self, draw: Draw) -> dict[str, float]:
        """Expectation of every cost under a draw, by name, in its own unit.

        Of different costs of one name, the later ones have their input's size in it: ``bitops``, ``bitops@64x64``.
        """
        return {name: float(cost(draw)) for name, cost in zip(self._names, self.costs, strict=True)}

    def spent(self, sample: Mapping[str, Any]) -> list[str]:
        """What one architecture costs, a line for each cost, with its budget where it has one."""
        lines = []
        for goal, name, cost in zip(self.goals, self._names, self.costs, strict=True):
            value = cast(ExpectedCost, cost).of(sample)
            budget = f" of {goal.maximum:,.6g} ({value / goal.maximum:.1%})" if isinstance(goal, Budget) else ""
            lines.append(f"{name}: {value:,.6g}{budget}")
        return lines

    @torch.no_grad()
    def update(self, share: float) -> None:
        """Bring the distribution to its budgets' targets after an architecture step, see ``Multipliers``.

        Args:
            share: that step's share of the whole search, one over the number of architecture steps.
        """
        if self.multipliers is not None:
            self.multipliers.update(self._distribution[0], share)

    def most_likely(self) -> dict[str, Any]:
        """The architecture found: the most probable one that keeps the budgets.

        Without budgets that is the joint arg max of every block.
        """
        (distribution,) = self._distribution
        if self.selector is None:
            return distribution.most_likely()
        return self.selector.select(distribution.log_probabilities())

    def ranked(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """Log-probabilities and samples of all architectures within the budgets, see ``ArchitectureSelector.ranked``.

        Raises:
            InputError: when a block has too many options to rank them.
        """
        (distribution,) = self._distribution
        selector = self.selector or ArchitectureSelector(distribution.tree, (), ())
        return selector.ranked(distribution.log_probabilities())

    def budget_multipliers(self) -> dict[str, float]:
        """The multiplier of every budget, by the name of its cost."""
        if self.multipliers is None:
            return {}
        names = [name for goal, name in zip(self.goals, self._names, strict=True) if isinstance(goal, Budget)]
        return dict(zip(names, self.multipliers.values.tolist(), strict=True))

    def forward(self, task_loss: Tensor, draw: Draw, t: float, epochs: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of an architecture step.

        Args:
            task_loss: scalar loss on validation data, computed with ``draw``.
            draw: the probabilities that the forward pass used.
            t: epochs since the warm-up ended (fractional).
            epochs: number of epochs after the warm-up.

        Returns:
            The loss to minimise, and its parts by name, detached: ``task``, ``entropy`` (nats), and every cost's
            expectation in its own unit.
        """
        (distribution,) = self._distribution
        entropy = distribution.entropy(draw)
        parts = {"task": task_loss.detach(), "entropy": entropy.detach()}
        total = task_loss
        for goal, name, cost, reference in zip(self.goals, self._names, self.costs, self.references, strict=True):
            expected = cost(draw)
            parts[name] = expected.detach()
            if isinstance(goal, Penalty):
                total = total + (goal.weight * expected / reference).to(task_loss.dtype)
        weight = entropy_weight(self.entropy, t, epochs)
        if weight:
            # The entropy is there already, for the logs.
            term = entropy if self.regularizer == "entropy" else regularization(self.regularizer, distribution, draw)
            total = total + weight * term
        return total, parts


def _names(costs: Sequence[Cost]) -> list[str]:
    """A name for each cost; only equal costs have the same one."""
    named: dict[str, Cost] = {}
    names = []
    for cost in costs:
        size = "x".join(map(str, cost.input_shape[2:] or cost.input_shape[1:]))
        whole = "x".join(map(str, cost.input_shape))
        possible = itertools.chain(
            (cost.name, f"{cost.name}@{size}", f"{cost.name}@{whole}"),
            (f"{cost.name}@{whole}#{number}" for number in itertools.count(2)),
        )
        name = next(name for name in possible if named.get(name, cost) == cost)
        named[name] = cost
        names.append(name)
    return names


def _uniform(distribution: ArchitectureDistribution) -> Draw:
    flat = ArchitectureDistribution(distribution.tree).to(
        distribution.logits[distribution.tree.choices[0].label].device
    )
    for logits in flat.logits.values():
        logits.zero_()
    return flat.settle()
