"""Random architectures: every one equally likely, distinct, repeatable, and within budgets."""

import itertools
import math
from typing import Any

import nni
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from small_searches import COST, LinkedSpace
from torch import nn

from quantnas_ext.costs.cost import sample_cost
from quantnas_ext.costs.goals import Budget
from quantnas_ext.deriving import random_architectures as module
from quantnas_ext.deriving.random_architectures import random_architectures
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.nn import MutableQuantConv2d
from quantnas_ext.spaces import SRBasicSpace


def small_space() -> SRBasicSpace:
    only = dict.fromkeys(("head", "skip", "upsample", "tail"), ["conv_3x3"])
    body = ["conv_1x1", "conv_3x3"]
    return SRBasicSpace(scale=2, width=6, cells=1, bits=[4, 8], body=body, head_blocks=1, tail_blocks=1, **only)


class LayeredSpace(ModelSpace):
    """One block, of which one candidate has three precisions of its own."""

    def __init__(self) -> None:
        super().__init__()
        layers = [MutableQuantConv2d(3, 3, 1, bits=nni.choice(label, [2, 4, 8])) for label in ("a", "b", "c")]
        self.block = LayerChoice({"layers": nn.Sequential(*layers), "none": nn.ReLU()}, label="block")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


def key(sample: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(sample.items()))


def every_architecture(space: Any) -> dict[tuple[Any, ...], float]:
    """All architectures of a space with their costs, by trying all values of all labels."""
    tree, terms = ChoiceTree.of(space), COST.terms(space)
    whole = (
        tree.complete(dict(zip([choice.label for choice in tree], values, strict=True)))
        for values in itertools.product(*(choice.values for choice in tree))
    )
    return {key(sample): sample_cost(terms, sample) for sample in whole}


@pytest.mark.parametrize("enumerable", [module.ENUMERABLE, 0])
def test_every_architecture_is_equally_likely(monkeypatch: pytest.MonkeyPatch, enumerable: int) -> None:
    monkeypatch.setattr(module, "ENUMERABLE", enumerable)
    space = LinkedSpace()  # with a precision that several candidates share and that often has no meaning
    counts = dict.fromkeys(every_architecture(space), 0)
    drawn, seeds = len(counts) // 4, 150
    for seed in range(seeds):
        found = random_architectures(space, drawn, seed=seed)
        assert found.uniform and len({key(sample) for sample in found.samples}) == drawn
        for sample in found.samples:
            counts[key(sample)] += 1
    p = drawn / len(counts)
    square = sum((count - seeds * p) ** 2 for count in counts.values()) / (seeds * p * (1 - p))
    assert square < len(counts) + 4 * math.sqrt(2 * len(counts))


@pytest.mark.parametrize("space", [small_space, LinkedSpace, LayeredSpace])
def test_all_architectures_within_a_budget_can_be_drawn_and_not_one_more(space: Any) -> None:
    model = space()
    costs = every_architecture(model)
    maximum = sorted(costs.values())[2 * len(costs) // 3]
    within = {sample for sample, cost in costs.items() if 0.95 * maximum <= cost <= maximum}
    budgets = [Budget(COST, maximum)]
    found = random_architectures(model, len(within), budgets=budgets)
    assert {key(sample) for sample in found.samples} == within and 1 < len(within) < len(costs)
    with pytest.raises(InputError, match=f"{len(within)} keep and fill the budgets"):
        random_architectures(model, len(within) + 1, budgets=budgets)
    with pytest.raises(InputError, match=f"the space has {len(costs)}; ask for at most"):
        random_architectures(model, len(costs) + 1)


@pytest.mark.parametrize("patience", [module.PATIENCE, 0])
def test_drawn_architectures_are_distinct_fill_the_budget_and_repeat_with_the_seed(
    monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    monkeypatch.setattr(module, "ENUMERABLE", 0)
    monkeypatch.setattr(module, "PATIENCE", patience)
    model = small_space()
    terms, costs = COST.terms(model), sorted(every_architecture(model).values())
    maximum = costs[len(costs) // 2]
    first, again, other = (
        random_architectures(model, 8, budgets=[Budget(COST, maximum)], seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other and first.uniform == (patience > 0)
    assert len({key(sample) for sample in first.samples}) == 8
    assert all(0.95 * maximum <= sample_cost(terms, sample) <= maximum for sample in first.samples)
    with pytest.raises(InputError, match="cheapest"):
        random_architectures(model, 1, budgets=[Budget(COST, costs[0] / 2)])
    if not patience:
        with pytest.raises(InputError, match="were found that keep the budgets"):
            random_architectures(model, 200, budgets=[Budget(COST, maximum)])


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="a number of random architectures, 0 is not possible"):
        random_architectures(small_space(), 0)
