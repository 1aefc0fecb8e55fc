"""The most probable architectures, in order: as a list of all of them says that is made without the code under test."""

from pathlib import Path
from typing import Any

import nni
import pytest
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from small_searches import COST, LinkedSpace, NestedSpace, TwiceShared, all_architectures, search, tiny_space
from torch import nn

from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Budget
from quantnas_ext.deriving.ranking import ArchitectureSelector
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.nn import MutableQuantConv2d
from quantnas_ext.search.strategy import QuantNAS

Entry = tuple[dict[str, Any], float, list[float]]


class SharedChain(ModelSpace):
    """A precision that blocks and a shared block share: the latter has a meaning in some architectures only."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerChoice({"x": self.block(), "y": nn.ReLU()}, label="first")
        self.second = LayerChoice({"x": self.block(), "y": self.conv("own")}, label="second")
        self.third = LayerChoice({"x": self.conv("bits"), "y": nn.ReLU()}, label="third")

    def block(self) -> nn.Module:
        return LayerChoice({"a": self.conv("bits"), "b": nn.ReLU(), "c": self.conv("other")}, label="block")

    def conv(self, label: str) -> nn.Module:
        return MutableQuantConv2d(2, 2, 1, bits=nni.choice(label, [2, 4]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(x)))


def shaken(space: ModelSpace, seed: int) -> ArchitectureDistribution:
    torch.manual_seed(seed)
    distribution = ArchitectureDistribution(ChoiceTree.of(space))
    for logits in distribution.parameters():
        logits.data.normal_(std=1.5)
    return distribution


def in_order(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: -entry[1])


@pytest.mark.parametrize("space", [NestedSpace, TwiceShared, LinkedSpace, SharedChain])
@pytest.mark.parametrize("seed", range(3))
def test_all_architectures_come_once_in_the_order_of_their_probability(space: Any, seed: int) -> None:
    distribution = shaken(space(), seed)
    expected = in_order(all_architectures(space(), distribution, []))
    found = list(ArchitectureSelector(distribution.tree, (), ()).ranked(distribution.log_probabilities()))
    assert [value for value, _ in found] == pytest.approx([value for _, value, _ in expected])
    assert sum(torch.tensor([value for value, _ in found]).exp()) == pytest.approx(1)
    known = {str(sample): value for sample, value, _ in expected}
    assert len({str(sample) for _, sample in found}) == len(expected)
    assert all(known[str(sample)] == pytest.approx(value) for value, sample in found)
    if not any(choice.owners for choice in distribution.tree):
        assert found[0][1] == distribution.most_likely()


@pytest.mark.parametrize("space", [tiny_space, LinkedSpace])
def test_within_a_budget_the_ranking_is_that_of_the_architectures_that_keep_and_use_it(space: Any) -> None:
    model = space()
    distribution = shaken(model, 4)
    cost = BitOps((1, 3, 8, 8))
    everything = all_architectures(model, distribution, [cost])
    costs = sorted(entry[2][0] for entry in everything)
    for maximum in (costs[len(costs) // 3], costs[len(costs) // 2], costs[-1]):
        selector = ArchitectureSelector(distribution.tree, [Budget(cost, maximum)], [cost.terms(model)])
        found = list(zip(range(8), selector.ranked(distribution.log_probabilities()), strict=False))
        within = in_order([entry for entry in everything if 0.95 * maximum <= entry[2][0] <= maximum])[:8]
        assert [value for _, (value, _) in found] == pytest.approx([value for _, value, _ in within])
        known = {str(sample): value for sample, value, _ in within}
        assert all(known[str(sample)] == pytest.approx(value) for _, (value, sample) in found)


def test_inputs_to_choose_are_ranked_by_their_probabilities() -> None:
    class Inputs(ModelSpace):
        def __init__(self, chosen: int) -> None:
            super().__init__()
            self.inputs = InputChoice(3, n_chosen=chosen, label="inputs")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inputs([x, x, x])

    for chosen, expected in ((1, [[1], [2], [0]]), (2, [[1, 2], [0, 1], [0, 2]])):
        distribution = ArchitectureDistribution(ChoiceTree.of(Inputs(chosen)))
        distribution.logits["inputs"].data = torch.tensor([0.1, 0.6, 0.3]).log()
        found = list(ArchitectureSelector(distribution.tree, (), ()).ranked(distribution.log_probabilities()))
        assert [sample["inputs"] for _, sample in found] == expected
        assert found[0][1] == distribution.most_likely()


def test_too_many_ways_to_share_are_refused_before_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantnas_ext.deriving.block_options.MOST_CASES", 3)
    with pytest.raises(InputError, match="share the choices"):
        QuantNAS().mutate_model(SharedChain())
    monkeypatch.setattr("quantnas_ext.deriving.block_options.MOST_OPTIONS", 2)
    with pytest.raises(InputError, match="too many to rank them"):
        QuantNAS(costs=[Budget(COST, 1e9)]).mutate_model(tiny_space())


def test_nni_exports_the_most_probable_models(tmp_path: Path) -> None:
    strategy, found, _ = search(tmp_path, epochs=1)
    top = strategy.top_architectures(3)
    exported = [model.sample for model in strategy.list_models(limit=3)]
    assert exported == [sample for _, sample in top] and exported[0] == found
    assert top[0][0] > top[1][0] > top[2][0]
    assert len({str(sample) for sample in exported}) == 3
    with pytest.raises(InputError, match="a whole number of at least 1"):
        strategy.top_architectures(0)
