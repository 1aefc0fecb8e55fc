"""The most probable architecture that keeps all budgets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quantnas_ext.errors import InputError
from quantnas_ext.search.budget import FILL, Budget
from quantnas_ext.search.choice_tree import Choice, ChoiceTree, Context
from quantnas_ext.search.knapsack import Array, Group, best_selection

Option = tuple[tuple[str, int | None], ...]
"""One way to decide a block: (label, index of the value); None stands for the best subset of an input choice."""

Terms = Mapping[frozenset[Context], float]

MOST_OPTIONS = 100_000


class ArchitectureSelector:
    """Finds the architecture of largest joint probability whose costs keep all budgets.

    A cost is a sum over blocks, so this is a multiple-choice knapsack with a block's joint choices as the options
    (``best_selection``). Blocks whose costs depend on one another, for example by a precision that many of them share,
    are made independent by trying all options of the shared ones.

    Where some architecture uses a budget to ``FILL`` (95 %) at least, the one selected does too. Of several budgets the
    floors that can be kept together are kept, the first ones first.

    Args:
        tree: the choices of the space.
        budgets: one or more.
        terms: for every budget, what ``budget.cost.terms`` says of the space.

    Raises:
        InputError: when a budget cannot be met, naming what the space's architectures cost; when several cannot be met
            together; when a block has too many options to try them all.
    """

    def __init__(self, tree: ChoiceTree, budgets: Sequence[Budget], terms: Sequence[Terms]) -> None:
        self.tree = tree
        self.budgets = tuple(budgets)
        self._multiple = {choice.label: choice for choice in tree if choice.multiple is not None}
        self._values = {choice.label: choice.values for choice in tree}
        self._most = np.array([budget.maximum for budget in budgets], dtype=float)
        roots = [root.label for root in tree.roots()]
        owner: dict[str, str] = {}
        for choice in tree:
            owner[choice.label] = choice.label if choice.parent is None else owner[choice.parent[0]]
        joint = [(choices, index, cost) for index, of in enumerate(terms) for choices, cost in of.items()]
        options = {root.label: _options(tree, root) for root in tree.roots()}
        shared = _shared_roots([{owner[label] for label, _ in choices} for choices, _, _ in joint], roots)
        if math.prod(len(options[root]) for root in shared) > MOST_OPTIONS:
            raise InputError(
                f"the costs of blocks that share the choices {', '.join(shared)} cannot be told apart for a budget, "
                f"with more than {MOST_OPTIONS} combinations of those; share fewer choices, or use a Penalty"
            )
        self._free = [root for root in roots if root not in shared]
        self._options = {root: options[root] for root in self._free}
        by_block: dict[str | None, list[tuple[frozenset[Context], int, float]]] = {root: [] for root in self._free}
        by_block[None] = []
        for term in joint:
            block = next((owner[label] for label, _ in term[0] if owner[label] not in shared), None)
            by_block[block].append(term)
        # For every way to decide the shared choices: that way, its own cost, and the costs of all blocks' options.
        self._cases: list[tuple[Option, Array, list[Array]]] = []
        for case in itertools.product(*(options[root] for root in shared)):
            decided: Option = tuple(itertools.chain.from_iterable(case))
            tables = [
                np.array([self._cost(decided + option, by_block[root]) for option in self._options[root]])
                for root in self._free
            ]
            self._cases.append((decided, self._cost(decided, by_block[None]), tables))
        self._refuse_unreachable()
        self.floors = self._reachable_floors()

    def range(self, index: int = 0) -> tuple[float, float]:
        """What the cheapest and the dearest architecture cost, exactly, in the unit of a budget's cost."""
        lows = [fixed[index] + sum(table[:, index].min() for table in tables) for _, fixed, tables in self._cases]
        highs = [fixed[index] + sum(table[:, index].max() for table in tables) for _, fixed, tables in self._cases]
        return float(min(lows)), float(max(highs))

    def select(self, log_probabilities: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """The most probable architecture within the budgets.

        Args:
            log_probabilities: for every label those of its values.

        Returns:
            An NNI sample with the labels that matter for it only.
        """
        subsets = {
            label: choice.best_subset([math.exp(value) for value in log_probabilities[label]])
            for label, choice in self._multiple.items()
        }
        logs: dict[tuple[str, int | None], float] = {
            (label, index): value for label, row in log_probabilities.items() for index, value in enumerate(row)
        }
        logs.update({(label, None): math.log(mass) for label, (mass, _) in subsets.items()})
        best = self._solve(logs, np.array(self.floors))
        if best is None:
            raise RuntimeError("no architecture keeps the budgets, although one did when they were checked")
        chosen = dict(best)
        sample = {}
        for choice in self.tree:
            if choice.label in chosen:
                index = chosen[choice.label]
                sample[choice.label] = subsets[choice.label][1] if index is None else choice.values[index]
        return sample

    def _solve(self, logs: Mapping[tuple[str, int | None], float] | None, floors: Array) -> Option | None:
        """The best way to decide everything, or None; without ``logs`` any way within the limits."""

        def value(option: Option) -> float:
            return sum(logs[entry] for entry in option) if logs is not None else 0.0

        values = {root: np.array([value(option) for option in self._options[root]]) for root in self._free}
        best: tuple[float, Option] | None = None
        for decided, fixed, tables in self._cases:
            groups = [Group(np.array([fixed]), np.array([value(decided)]))]
            groups += [Group(table, values[root]) for root, table in zip(self._free, tables, strict=True)]
            found = best_selection(groups, floors * self._most, self._most)
            if found is not None and (best is None or found[0] > best[0]):
                chosen = (self._options[root][i] for root, i in zip(self._free, found[1][1:], strict=True))
                best = found[0], decided + tuple(itertools.chain.from_iterable(chosen))
        return None if best is None else best[1]

    def _refuse_unreachable(self) -> None:
        for index, budget in enumerate(self.budgets):
            cheapest, dearest = self.range(index)
            if budget.maximum < cheapest:
                raise InputError(
                    f"no architecture of this space keeps the budget of {budget.maximum:.12g} {budget.cost.name}; "
                    f"they cost from {cheapest:.12g} (cheapest) to {dearest:.12g} (dearest), so set it in that range"
                )
        if self._solve(None, np.zeros(len(self.budgets))) is None:
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
            if self._solve(None, floors) is None:
                floors[index] = 0.0
        return [float(floor) for floor in floors]

    def _cost(self, option: Option, terms: Sequence[tuple[frozenset[Context], int, float]]) -> Array:
        """``[budgets]``: the terms whose choices are all among an option's."""
        chosen = {(label, self._values[label][index]) for label, index in option if index is not None}
        costs = np.zeros(len(self.budgets))
        for choices, index, cost in terms:
            if choices <= chosen:
                costs[index] += cost
        return costs


def _options(tree: ChoiceTree, choice: Choice) -> list[Option]:
    """All ways to decide a choice and what hangs on it."""
    if choice.multiple is not None:
        return [((choice.label, None),)]
    options: list[Option] = []
    for index, value in enumerate(choice.values):
        below = [_options(tree, child) for child in tree.children(choice.label, value)]
        if len(options) + math.prod(map(len, below)) > MOST_OPTIONS:
            raise InputError(
                f"choice {choice.label!r} has more than {MOST_OPTIONS} combinations of choices within it, too many for "
                "a budget; use fewer, or a Penalty"
            )
        for rest in itertools.product(*below):
            options.append(((choice.label, index), *itertools.chain.from_iterable(rest)))
    return options


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
