"""What anybody would build by hand, as near as the budget allows."""

import itertools
from typing import Any

import nni
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace
from small_searches import COST, LinkedSpace, all_architectures, tiny_space
from torch import nn

from quantnas_ext.costs.goals import Budget
from quantnas_ext.deriving.plain_architectures import plain_architectures
from quantnas_ext.deriving.ranking import ArchitectureSelector
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.nn import MutableQuantConv2d


def found_in(space: ModelSpace, maximum: float, count: int) -> tuple[list[Any], list[dict[str, Any]]]:
    torch.manual_seed(1)
    distribution = ArchitectureDistribution(ChoiceTree.of(space))
    for logits in distribution.parameters():
        logits.data.normal_(std=2.0)
    selector = ArchitectureSelector(distribution.tree, [Budget(COST, maximum)], [COST.terms(space)])
    architectures = all_architectures(space, distribution, [COST])
    return architectures, plain_architectures(selector, distribution.log_probabilities(), count)


def differing(sample: dict[str, Any], operation: str, low: int, wide: tuple[str, ...]) -> int:
    offering = {"conv_3x3": ("head_0", "head_1", "body_skip"), "conv_5x5": ("head_0", "head_1", "body_0", "body_1")}
    other = sum(sample[label] != operation for label in offering[operation])
    precisions = {label: value for label, value in sample.items() if label.endswith("bits")}
    return other + sum(value != (8 if label.startswith(wide) else low) for label, value in precisions.items())


PLAIN = [("conv_3x3", 4), ("conv_3x3", 8), ("conv_5x5", 4), ("conv_5x5", 8)]


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_they_are_the_nearest_within_the_budget_and_the_more_probable_among_equally_near_ones(share: float) -> None:
    tree, terms = ChoiceTree.of(tiny_space()), COST.terms(tiny_space())
    cheapest, dearest = ArchitectureSelector(tree, [Budget(COST, 1e15)], [terms]).range()
    maximum = cheapest + share * (dearest - cheapest)
    architectures, found = found_in(tiny_space(), maximum, 20)
    within = [entry for entry in architectures if 0.95 * maximum <= entry[2][0] <= maximum]
    nearest = {}
    for operation, low in PLAIN:
        for wide in [(), ("head_0",), ("head_0", "tail_1")][: 3 if low == 4 else 1]:
            distances = [differing(sample, operation, low, wide) for sample, _, _ in within]
            closest = [entry for entry, d in zip(within, distances, strict=True) if d == min(distances)]
            sample, _, _ = max(closest, key=lambda entry: entry[1])
            key = str(sorted(sample.items()))
            nearest[key] = min(nearest.get(key, np.inf), min(distances))
    keys = [str(sorted(sample.items())) for sample in found]
    assert len(keys) == len(set(keys)) and set(keys) == set(nearest)
    distances = [nearest[key] for key in keys]
    assert all(before <= after for before, after in itertools.pairwise(distances)), distances


class OnlyPrecisions(nn.Sequential, ModelSpace):
    """Three convolutions in a row."""

    def __init__(self) -> None:
        super().__init__(*(MutableQuantConv2d(3, 3, 1, bits=nni.choice(label, [8, 4, 2])) for label in "abc"))


def test_spaces_without_operations_and_with_shared_precisions_have_some_too() -> None:
    def bits(*of: int) -> dict[str, int]:
        return dict(zip("abc", of, strict=True))

    for plain in (bits(4, 4, 4), bits(8, 4, 4), bits(8, 2, 8), bits(2, 2, 2)):
        cost = sum(9 * 64 * value**2 for value in plain.values())
        assert found_in(OnlyPrecisions(), cost, 20)[1][0] == plain
    architectures, found = found_in(LinkedSpace(), 6_000, 2)
    assert 1 <= len(found) <= 2
    costs = {str(sorted(sample.items())): cost for sample, _, (cost,) in architectures}
    assert all(costs[str(sorted(sample.items()))] <= 6_000 for sample in found)
