"""The multiple-choice knapsack: one option of every group, the largest total value, every total cost within limits."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STATES = 50_000
"""Partial selections kept after a group. Up to here the solution is exact; beyond, costs are told apart on a grid."""

_ROUNDING = 1e-9  # relative; partial sums are cut off with this much slack, whole ones are compared exactly


@dataclass(frozen=True)
class Group:
    """Options of which exactly one is taken.

    Attributes:
        costs: ``[options, kinds of cost]``, none negative.
        values: ``[options]``, what the options are worth; minus infinity for what must not be taken.
    """

    costs: Array
    values: Array


def best_selection(groups: Sequence[Group], least: Array, most: Array) -> tuple[float, list[int]] | None:
    """The selection of largest total value whose total costs lie within ``[least, most]``.

    Dynamic programming over the groups (Kellerer, Pferschy and Pisinger, "Knapsack Problems", 2004, ch. 11), on the
    costs that occur rather than on a grid: of partial selections that cost the same only the most valuable goes on. It
    is exact as long as no more than ``STATES`` different costs within reach of the limits occur. Where more do, one
    partial selection goes on for each cell of a grid of ``STATES`` cells, with its true cost: the limits are still kept
    exactly, and the cheapest and dearest selections are still found, but a slightly more valuable one may be missed.

    Args:
        groups: at least one option in each.
        least: ``[kinds of cost]``, smallest totals.
        most: ``[kinds of cost]``, largest totals.

    Returns:
        Total value, and the index of the option of every group; None where no selection is within the limits.
    """
    # What the groups still to come can add at least and at most.
    low = np.cumsum([g.costs.min(axis=0) for g in reversed(groups)], axis=0)[::-1]
    high = np.cumsum([g.costs.max(axis=0) for g in reversed(groups)], axis=0)[::-1]
    nothing = np.zeros((1, len(most)))
    low, high = np.concatenate([low[1:], nothing]), np.concatenate([high[1:], nothing])
    costs, values = nothing, np.zeros(1)
    steps: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for group, rest_low, rest_high in zip(groups, low, high, strict=True):
        options = len(group.values)
        next_costs = (costs[:, None, :] + group.costs[None, :, :]).reshape(len(costs) * options, len(most))
        next_values = (values[:, None] + group.values[None, :]).reshape(-1)
        possible = (
            (next_costs + rest_low <= most * (1 + _ROUNDING)).all(axis=1)
            & (next_costs + rest_high >= least * (1 - _ROUNDING)).all(axis=1)
            & (next_values > -np.inf)
        )
        kept = np.flatnonzero(possible)
        kept = kept[_representatives(next_costs[kept], next_values[kept])]
        costs, values = next_costs[kept], next_values[kept]
        steps.append((kept // options, kept % options))
        if not len(kept):
            return None
    within = np.flatnonzero(((costs >= least) & (costs <= most)).all(axis=1))
    if not len(within):
        return None
    state = within[np.argmax(values[within])]
    value = float(values[state])
    selection = []
    for before, option in reversed(steps):
        selection.append(int(option[state]))
        state = before[state]
    return value, selection[::-1]


def ranked_selections(
    problems: Sequence[Sequence[Group]], least: Array, most: Array
) -> Iterator[tuple[float, int, list[int]]]:
    """All selections of several knapsacks within the limits, the most valuable first, each found when it is asked for.

    After a selection its problem is split into disjoint ones that together hold all others: the groups before one are
    kept as selected, and that one must not be (Lawler, "A procedure for computing the K best solutions to discrete
    optimization problems", Management Science 18, 1972). Each part is a knapsack again, so the ranking is as exact as
    ``best_selection``.

    Args:
        problems: groups of options, the same kinds of cost in all.
        least: ``[kinds of cost]``, smallest totals.
        most: ``[kinds of cost]``, largest totals.

    Yields:
        Total value, index of the problem, and the index of the option of every group.
    """
    order = itertools.count()  # of equally valuable selections the one found first comes first
    found: list[tuple[float, int, int, list[int], int, frozenset[int]]] = []

    def solve(problem: int, kept: list[int], barred: frozenset[int]) -> None:
        """Find the best selection that begins with ``kept`` and then has none of the ``barred`` options."""
        groups = problems[problem]
        place = len(kept)
        open_groups = [Group(group.costs[[i]], group.values[[i]]) for group, i in zip(groups, kept, strict=False)]
        options = [i for i in range(len(groups[place].values)) if i not in barred]
        if not options:
            return
        open_groups.append(Group(groups[place].costs[options], groups[place].values[options]))
        best = best_selection([*open_groups, *groups[place + 1 :]], least, most)
        if best is not None:
            selection = [*kept, options[best[1][place]], *best[1][place + 1 :]]
            heapq.heappush(found, (-best[0], next(order), problem, selection, place, barred))

    for problem in range(len(problems)):
        solve(problem, [], frozenset())
    while found:
        negative, _, problem, selection, start, barred = heapq.heappop(found)
        yield -negative, problem, selection
        for place in range(start, len(selection)):
            before = barred if place == start else frozenset()
            solve(problem, selection[:place], before | {selection[place]})


def _representatives(costs: Array, values: Array) -> NDArray[np.intp]:
    """Which partial selections go on: of equal ones (or ones in the same cell of the grid) the most valuable."""
    kept = _most_valuable_of_equals(costs, values)
    if len(kept) <= STATES:
        return kept
    costs, values = costs[kept], values[kept]
    cells = max(2, int(STATES ** (1 / costs.shape[1])))
    low, span = costs.min(axis=0), np.ptp(costs, axis=0)
    grid = np.floor((costs - low) / np.where(span > 0, span, 1.0) * (cells - 1))
    chosen = _most_valuable_of_equals(grid, values)
    extremes = np.concatenate([costs.argmin(axis=0), costs.argmax(axis=0)])
    return kept[np.unique(np.concatenate([chosen, extremes]))]


def _most_valuable_of_equals(keys: Array, values: Array) -> NDArray[np.intp]:
    """Indices, in the order of the keys, of the most valuable row for every different key."""
    order = np.lexsort([-values, *keys.T])
    ordered = keys[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order[first]
