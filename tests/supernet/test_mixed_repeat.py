"""Blocks that are repeated a searched number of times: exact costs, every depth in the sum, weights kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import nni
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from small_searches import all_architectures
from torch import nn

from quantnas_ext import BitOps, Budget, InputError, MutableQuantConv2d, ParameterBytes, QuantNAS
from quantnas_ext.costs.cost import sample_cost
from quantnas_ext.costs.latency.segments import cut_space
from quantnas_ext.quantization import set_quantization

SHAPE = (1, 4, 6, 6)


class Stages(ModelSpace):
    """A stage of one to three blocks, each with operations to choose, and one that may be left out."""

    def __init__(self, depth: Any = None) -> None:
        super().__init__()
        self.stage = Repeat(self.block, nni.choice("depth", [1, 2, 3]) if depth is None else depth)
        self.end = Repeat([lambda index: self.convolution("end", 1)], (0, 1), label="end_depth")

    def block(self, index: int) -> nn.Module:
        sizes = {f"conv{size}": self.convolution(f"block{index}_{size}", size) for size in (1, 3)}
        return nn.Sequential(nn.ReLU(), LayerChoice(sizes, label=f"block{index}"), nn.BatchNorm2d(4))

    def convolution(self, label: str, size: int) -> nn.Module:
        return MutableQuantConv2d(4, 4, size, padding=size // 2, bits=nni.choice(label, [2, 8]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.stage(x))


def drawn(space: ModelSpace, count: int) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = [{} for _ in range(count)]
    for sample in samples:
        space.random(sample)
    return samples


def test_costs_of_every_depth_are_those_of_the_frozen_networks(
    independent_bitops: Callable[[nn.Module, tuple[int, ...]], float],
) -> None:
    space = Stages()
    depths = itertools.product((1, 2, 3), (0, 1))
    for sample, (depth, end) in zip(drawn(space, 6), depths, strict=True):
        sample |= {"depth": depth, "end_depth": end}
        network = space.freeze(sample)
        assert sample_cost(BitOps(SHAPE).terms(space), sample) == independent_bitops(network, SHAPE)
        size = ParameterBytes(SHAPE)
        assert sample_cost(size.terms(space), sample) == size.of_network(network)
    with pytest.raises(InputError, match="module 'stage' .* searches its depth"):
        cut_space(space, SHAPE, torch.device("cpu"))
    with pytest.raises(InputError, match="searches its depth"):
        BitOps(SHAPE).terms(Stages(nni.choice("half", [1, 2]) + 1))


def test_the_supernet_sums_all_depths_and_its_networks_keep_weights() -> None:
    torch.manual_seed(0)
    space, x = Stages(), torch.rand(2, *SHAPE[1:])
    strategy = QuantNAS(quantization="none")
    supernet = strategy.mutate_model(space).eval()
    for logits in strategy.distribution.logits.values():
        nn.init.normal_(logits)
    sample = {label: values[0] for label, values in ((c.label, c.values) for c in strategy.distribution.tree)}
    for index in range(3):  # decided, so that what is left are the depths
        strategy.distribution.logits[f"block{index}"].data = torch.tensor([50.0, 0.0])
    p = strategy.distribution.softmax()
    expected = 0
    for (row, depth), (column, end) in itertools.product(enumerate((1, 2, 3)), enumerate((0, 1))):
        network = supernet.freeze({**sample, "depth": depth, "end_depth": end})
        set_quantization(network, False)
        assert len(network.stage) == depth and len(network.end) == end
        expected = expected + p["depth"][row] * p["end_depth"][column] * network.eval()(x)
    strategy.distribution.settle()
    torch.testing.assert_close(supernet(x), expected)
    kept = supernet.freeze(sample | {"depth": 3}).stage[2][1].weight
    assert torch.equal(kept, supernet.stage.blocks[2][1]["conv1"].weight)


@pytest.mark.parametrize("relaxation", ["softmax", "one_path"])
def test_depths_are_searched_within_a_budget_and_the_most_probable_architecture_is_found(relaxation: str) -> None:
    torch.manual_seed(1)
    budget = Budget(BitOps(SHAPE), 60_000.0)
    strategy = QuantNAS(costs=[budget], relaxation=relaxation, architecture_learning_rate=0.1)
    supernet = strategy.mutate_model(Stages())
    strategy.start(torch.optim.Adam(supernet.parameters()), epochs=1, steps_per_epoch=3)
    before = {label: logits.detach().clone() for label, logits in strategy.distribution.logits.items()}
    x = torch.rand(2, *SHAPE[1:])
    for step in range(3):
        with strategy.architecture_phase(step) as phase:
            phase.minimize(supernet(x).square().mean())
        with strategy.weight_phase(step) as phase:
            phase.minimize(supernet(x).square().mean())
    assert all(not torch.equal(before[label], strategy.distribution.logits[label]) for label in ("depth", "end_depth"))
    found = strategy.most_likely()
    known = all_architectures(Stages(), strategy.distribution, [budget.cost])
    within = {repr(sample): log for sample, log, (cost,) in known if 0.95 * budget.maximum <= cost <= budget.maximum}
    assert within[repr(found)] == pytest.approx(max(within.values()))
    assert budget.cost.of_network(strategy.derive()) <= budget.maximum
