"""Random architectures of a space: what any search has to be better than (Li and Talwalkar, UAI 2019)."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.arguments import whole_number
from quantnas_ext.costs.cost import sample_cost
from quantnas_ext.costs.goals import Budget
from quantnas_ext.deriving.ranking import ArchitectureSelector
from quantnas_ext.distribution.choices import Choice, ChoiceTree
from quantnas_ext.errors import InputError

ENUMERABLE = 100_000
"""Spaces of up to so many architectures are gone through as a whole, in random order."""

PATIENCE = 1_000
"""Draws for one new architecture within the budgets, on average, after which drawing and discarding is given up."""

REPEATS = 100
"""Selected architectures in a row that are all known already, after which no more are expected."""


@dataclass(frozen=True)
class RandomArchitectures:
    """Distinct random architectures.

    Attributes:
        samples: NNI samples, with the labels that matter for each only.
        uniform: whether every architecture (within the budgets) was equally likely; otherwise they come from random
            probabilities, see ``random_architectures``.
    """

    samples: list[dict[str, Any]]
    uniform: bool


def random_architectures(
    space: ModelSpace, count: int, *, budgets: Sequence[Budget] = (), seed: int = 0
) -> RandomArchitectures:
    """Draw distinct architectures of a space at random.

    Without budgets they are a uniform sample, without replacement, of the space's architectures. With budgets they are
    the same of those that could be the result of a search: that keep all budgets, and use each to ``FILL`` (95 %) at
    least where that is possible. Architectures that do not are drawn and discarded.

    Where fewer than one in ``PATIENCE`` of a large space will do, random probabilities take the place of those of a
    search: every value of every choice gets independent Gumbel noise for a log-probability, and the most probable
    architecture within the budgets is taken (perturb and MAP, Papandreou and Yuille, ICCV 2011). All architectures can
    come out, but they are not equally likely.

    Args:
        space: the space; it stays as it is.
        count: how many.
        budgets: limits that all of them keep and fill.
        seed: the same seed gives the same architectures.

    Raises:
        InputError: for a count below 1 or above the number of architectures (within the budgets) that exist, or as
            ``ArchitectureSelector`` for the budgets.
    """
    count = whole_number("a number of random architectures,", count, least=1)
    seed = whole_number("seed", seed, least=0)
    tree = ChoiceTree.of(space)
    terms = [budget.cost.terms(space) for budget in budgets]
    selector = ArchitectureSelector(tree, budgets, terms) if budgets else None

    floors = selector.floors if selector else []

    def within(sample: Mapping[str, Any]) -> bool:
        costs = (sample_cost(of, sample) for of in terms)
        limits = zip(costs, budgets, floors, strict=True)
        return all(floor * budget.maximum <= cost <= budget.maximum for cost, budget, floor in limits)

    generator = random.Random(seed)
    total = math.prod(_count(tree, root) for root in tree.roots())
    if total <= ENUMERABLE:
        ranks = list(range(total))
        generator.shuffle(ranks)
        samples = list(itertools.islice(filter(within, _architectures(tree, ranks)), count))
        if len(samples) < count:
            raise _too_many(count, len(samples), bool(budgets))
        return RandomArchitectures(samples, uniform=True)
    if count > total:
        raise _too_many(count, total, within_budgets=False)
    samples = []
    for draws, sample in enumerate(_architectures(tree, _distinct_ranks(generator, total)), start=1):
        if within(sample):
            samples.append(sample)
            if len(samples) == count:
                return RandomArchitectures(samples, uniform=True)
        if selector is not None and draws > PATIENCE * (len(samples) + 1):
            return RandomArchitectures(_selected(tree, selector, count, generator), uniform=False)
    raise _too_many(count, len(samples), bool(budgets))


def _architectures(tree: ChoiceTree, ranks: Iterator[int] | Sequence[int]) -> Iterator[dict[str, Any]]:
    """The architectures of some ranks, which count all ways to decide every root; each architecture has one rank.

    A choice that several candidates share is a root that has no meaning where none of them is chosen. Of the ranks
    that differ in that only, the one with its first way counts, and the others are passed over.
    """
    roots = [(root, _count(tree, root)) for root in tree.roots()]
    for rank in ranks:
        ways: dict[str, int] = {}
        sample: dict[str, Any] = {}
        for root, number in roots:
            rank, ways[root.label] = divmod(rank, number)
            sample.update(_decided(tree, root, ways[root.label]))
        complete = tree.complete(sample)
        if all(label in complete or way == 0 for label, way in ways.items()):
            yield complete


def _distinct_ranks(generator: random.Random, total: int) -> Iterator[int]:
    """Numbers below ``total`` in random order, none twice, for a total too large to list them."""
    seen: set[int] = set()
    while len(seen) < total:
        rank = generator.randrange(total)
        if rank not in seen:
            seen.add(rank)
            yield rank


def _ways(tree: ChoiceTree, choice: Choice) -> list[tuple[Any, list[tuple[Choice, int]]]]:
    """All that a choice can be, each with the choices below it and the number of ways to decide these."""
    if choice.multiple is not None:
        return [(list(subset), []) for subset in itertools.combinations(choice.values, choice.multiple)]
    return [
        (value, [(child, _count(tree, child)) for child in tree.children(choice.label, value)])
        for value in choice.values
    ]


def _count(tree: ChoiceTree, choice: Choice) -> int:
    """Number of ways to decide a choice and what hangs on it."""
    return sum(math.prod(count for _, count in below) for _, below in _ways(tree, choice))


def _decided(tree: ChoiceTree, choice: Choice, way: int) -> dict[str, Any]:
    """The given one of all ways to decide a choice and what hangs on it."""
    for value, below in _ways(tree, choice):
        number = math.prod(count for _, count in below)
        if way < number:
            sample = {choice.label: value}
            for child, count in below:
                way, own = divmod(way, count)
                sample.update(_decided(tree, child, own))
            return sample
        way -= number
    raise IndexError(f"choice {choice.label!r} has no way {way}")


def _selected(
    tree: ChoiceTree, selector: ArchitectureSelector, count: int, generator: random.Random
) -> list[dict[str, Any]]:
    """Distinct architectures within the budgets that are the most probable under random probabilities."""
    samples: list[dict[str, Any]] = []
    repeats = 0
    while len(samples) < count:
        noise = {choice.label: [-math.log(generator.expovariate(1.0)) for _ in choice.values] for choice in tree}
        sample = tree.complete(selector.select(noise))
        repeats = repeats + 1 if sample in samples else 0
        if not repeats:
            samples.append(sample)
        elif repeats == REPEATS:
            raise InputError(
                f"only {len(samples)} of {count} random architectures were found that keep the budgets; "
                "ask for fewer, or raise a budget"
            )
    return samples


def _too_many(count: int, exist: int, within_budgets: bool) -> InputError:
    """The error for more architectures than there are."""
    number = f"{exist} keep and fill the budgets" if within_budgets else f"the space has {exist}"
    return InputError(f"{count} different architectures are not possible, since {number}; ask for at most so many")
