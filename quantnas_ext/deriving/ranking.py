"""The most probable architectures that keep all budgets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantnas_ext.costs.goals import FILL, Budget
from quantnas_ext.deriving.block_options import MOST_OPTIONS, BlockOptions, Option
from quantnas_ext.deriving.knapsack import Array, Group, ranked_selections
from quantnas_ext.distribution.choices import ChoiceTree, Context
from quantnas_ext.errors import InputError

Terms = Mapping[frozenset[Context], float]


@dataclass(frozen=True)
class _Case:
    """One knapsack: some choices are made, the other blocks' options with their costs are open.

    Attributes:
        decided: the choices made.
        fixed: ``[budgets]``, what they cost.
        options: for each open block its options.
        tables: for each of these ``[options, budgets]``, their costs.
    """

    decided: Option
    fixed: Array
    options: list[list[Option]]
    tables: list[Array]


class ArchitectureSelector:
    """Finds the architectures of largest probability whose costs keep all budgets, in order.

    The probability of an architecture is the product of those of the choices that have a meaning in it. For an input
    choice of several values it counts with the sum of the values' probabilities, by which NNI chooses them.

    A cost is a sum over blocks, so this is a multiple-choice knapsack with a block's joint choices as the options
    (``ranked_selections``). Blocks whose costs depend on one another, for example by a precision that many of them
    share, are made independent by trying all options of the shared ones. Without budgets it is exact; with them as
    exact as the knapsack.

    Where some architecture uses a budget to ``FILL`` (95 %) at least, those selected do too. Of several budgets the
    floors that can be kept together are kept, the first ones first.

    Args:
        tree: the choices of the space.
        budgets: the limits, or none.
        terms: for every budget, what ``budget.cost.terms`` says of the space.

    Raises:
        InputError: when a budget cannot be met, naming what the space's architectures cost; when several cannot be met
            together; when a block has too many options to try them all, or too many blocks share their choices.
    """

    def __init__(self, tree: ChoiceTree, budgets: Sequence[Budget], terms: Sequence[Terms]) -> None:
        self.tree = tree
        self.budgets = tuple(budgets)
        self._most = np.array([budget.maximum for budget in budgets], dtype=float)
        self._blocks = BlockOptions(tree)
        block, options = self._blocks.block, self._blocks.options
        joint = [(choices, index, cost) for index, of in enumerate(terms) for choices, cost in of.items()]
        shared = _shared_roots([{block[label] for label, _ in choices} for choices, _, _ in joint], list(options))
        if math.prod(len(options[root]) for root in shared) > MOST_OPTIONS:
            raise InputError(
                f"the costs of blocks that share the choices {', '.join(shared)} cannot be told apart for a budget, "
                f"with more than {MOST_OPTIONS} combinations of those; share fewer choices, or use a Penalty"
            )
        free = [root for root in options if root not in shared]
        by_block: dict[str | None, list[tuple[frozenset[Context], int, float]]] = {root: [] for root in free}
        by_block[None] = []
        for term in joint:
            by_block[next((block[label] for label, _ in term[0] if block[label] not in shared), None)].append(term)
        self._cases: list[_Case] = []
        for blocks in self._blocks.cases():
            for case in itertools.product(*(blocks[root] for root in shared)):
                decided: Option = tuple(itertools.chain.from_iterable(case))
                tables = [
                    np.array([self._cost(decided + option, by_block[root]) for option in blocks[root]]) for root in free
                ]
                fixed = self._cost(decided, by_block[None])
                self._cases.append(_Case(decided, fixed, [blocks[root] for root in free], tables))
        self._refuse_unreachable()
        self.floors = self._reachable_floors()

    def range(self, index: int = 0) -> tuple[float, float]:
        """What the cheapest and the dearest architecture cost, exactly, in the unit of a budget's cost."""
        lows = [case.fixed[index] + sum(table[:, index].min() for table in case.tables) for case in self._cases]
        highs = [case.fixed[index] + sum(table[:, index].max() for table in case.tables) for case in self._cases]
        return float(min(lows)), float(max(highs))

    def select(self, log_probabilities: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """The most probable architecture within the budgets, see ``ranked``."""
        best = next(self.ranked(log_probabilities), None)
        if best is None:
            raise RuntimeError("no architecture keeps the budgets, although one did when they were checked")
        return best[1]

    def ranked(self, log_probabilities: Mapping[str, Sequence[float]]) -> Iterator[tuple[float, dict[str, Any]]]:
        """All architectures within the budgets, the most probable first, each made when it is asked for.

        Args:
            log_probabilities: for every label those of its values.

        Yields:
            Log-probability, and an NNI sample with the labels that matter for it only.
        """
        for value, option in self._ranked(log_probabilities, np.array(self.floors)):
            chosen = dict(option)
            sample = {}
            for choice in self.tree:
                index = chosen.get(choice.label)
                if isinstance(index, tuple):
                    sample[choice.label] = [choice.values[i] for i in index]
                elif index is not None:
                    sample[choice.label] = choice.values[index]
            yield value, sample

    def log_probability(self, log_probabilities: Mapping[str, Sequence[float]], sample: Mapping[str, Any]) -> float:
        """The log-probability that ``ranked`` gives an architecture, whether it keeps the budgets or not."""
        total = 0.0
        for choice in self.tree:
            if choice.label in sample:
                value = sample[choice.label]
                chosen = [value] if choice.multiple is None else value
                total += _log_mass([log_probabilities[choice.label][choice.values.index(part)] for part in chosen])
        return total

    def _ranked(
        self, log_probabilities: Mapping[str, Sequence[float]] | None, floors: Array
    ) -> Iterator[tuple[float, Option]]:
        """The ways to decide everything within the limits, best first; without probabilities in any order."""

        def value(option: Option) -> float:
            if log_probabilities is None:
                return 0.0
            return sum(
                _log_mass([log_probabilities[label][i] for i in index])
                if isinstance(index, tuple)
                else log_probabilities[label][index]
                for label, index in option
            )

        problems = []
        for case in self._cases:
            groups = [Group(np.array([case.fixed]), np.array([value(case.decided)]))]
            for options, table in zip(case.options, case.tables, strict=True):
                groups.append(Group(table, np.array([value(option) for option in options])))
            problems.append(groups)
        for total, problem, selection in ranked_selections(problems, floors * self._most, self._most):
            case = self._cases[problem]
            chosen = (options[i] for options, i in zip(case.options, selection[1:], strict=True))
            yield total, case.decided + tuple(itertools.chain.from_iterable(chosen))

    def _refuse_unreachable(self) -> None:
        for index, budget in enumerate(self.budgets):
            cheapest, dearest = self.range(index)
            if budget.maximum < cheapest:
                raise InputError(
                    f"no architecture of this space keeps the budget of {budget.maximum:.12g} {budget.cost.name}; "
                    f"they cost from {cheapest:.12g} (cheapest) to {dearest:.12g} (dearest), so set it in that range"
                )
        if next(self._ranked(None, np.zeros(len(self.budgets))), None) is None:
            reach = [(budget.cost.name, *self.range(index)) for index, budget in enumerate(self.budgets)]
            ranges = (f"{name} {cheapest:.12g} to {dearest:.12g}" for name, cheapest, dearest in reach)
            raise InputError(
                f"no architecture of this space keeps all budgets together; each alone can be {', '.join(ranges)}; "
                "raise one of them"
            )

    def _reachable_floors(self) -> list[float]:
        floors = np.zeros(len(self.budgets))
        for index in range(len(self.budgets)):
            floors[index] = FILL
            if next(self._ranked(None, floors), None) is None:
                floors[index] = 0.0
        return [float(floor) for floor in floors]

    def _cost(self, option: Option, terms: Sequence[tuple[frozenset[Context], int, float]]) -> Array:
        """``[budgets]``: the terms whose choices are all among an option's."""
        chosen = self._blocks.contexts(option)
        costs = np.zeros(len(self.budgets))
        for choices, index, cost in terms:
            if choices <= chosen:
                costs[index] += cost
        return costs


def _log_mass(log_probabilities: Sequence[float]) -> float:
    """Logarithm of the sum of some probabilities, exact also where all of them are tiny."""
    largest = max(log_probabilities)
    return largest + math.log(sum(math.exp(value - largest) for value in log_probabilities))


def _shared_roots(linked: Sequence[set[str]], roots: Sequence[str]) -> list[str]:
    """Roots without which no term of a cost involves two others, few of them: always the one in most such terms."""
    shared: list[str] = []
    while True:
        open_links = [link - set(shared) for link in linked]
        counts = {root: sum(root in link for link in open_links if len(link) > 1) for root in roots}
        root = max(roots, key=lambda name: counts[name])
        if not counts[root]:
            return shared
        shared.append(root)
