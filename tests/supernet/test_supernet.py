"""The supernet: equal to the unquantized one where it should be, noisy where it should be, one draw for all."""

from typing import Any

import nni
import pytest
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, Repeat
from torch import nn

from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Penalty
from quantnas_ext.errors import InputError
from quantnas_ext.nn import MutableQuantConv2d, MutableQuantLinear
from quantnas_ext.quantization import QuantConv2d, QuantLinear
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRBasicSpace
from quantnas_ext.supernet.layer_input import LayerInput
from quantnas_ext.supernet.mixed_layers import MixedQuantConv2d
from quantnas_ext.supernet.quantization_mode import SearchQuantization


def make_supernet(bits: list[Any], quantization: str = "noise", **arguments: Any) -> tuple[SRBasicSpace, QuantNAS]:
    torch.manual_seed(0)
    space = SRBasicSpace(**{"scale": 2, "width": 6, "cells": 2, "adq": False, "bits": bits, **arguments})
    strategy = QuantNAS(quantization=quantization)
    strategy.mutate_model(space)
    return space, strategy


def decide(strategy: QuantNAS, wanted: dict[str, Any]) -> None:
    """All probability on the wanted values of the labels given (by ending)."""
    for choice in strategy.distribution.tree:
        for ending, value in wanted.items():
            if choice.label.endswith(ending) and value in choice.values:
                logits = strategy.distribution.logits[choice.label].data
                logits.copy_(torch.where(torch.arange(len(logits)) == choice.values.index(value), 1e4, -1e4))


@pytest.mark.parametrize("mixture", ["rss", "power"])
def test_with_all_weight_on_32_bits_the_supernet_equals_the_unquantized_one_and_no_gradient_is_nan(
    mixture: str,
) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 8, 8)
    space = SRBasicSpace(scale=2, width=6, cells=2, bits=[4, 8, 32])
    strategy = QuantNAS(noise_mixture=mixture)
    strategy.mutate_model(space)
    decide(strategy, {"__bits": 32})
    strategy.distribution.draw()
    noisy = space(x)
    strategy.context.quantization = SearchQuantization("none")
    torch.testing.assert_close(noisy, space(x), rtol=0, atol=0)
    strategy.context.quantization = SearchQuantization("noise", mixture=mixture)
    space(x).square().mean().backward()
    everything = [*space.parameters(), *strategy.distribution.parameters()]
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in everything)
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in strategy.distribution.parameters())


def test_output_is_the_probability_weighted_sum_of_the_candidates() -> None:
    space, strategy = make_supernet([8])
    space.eval()
    block = space.head[0]
    draw = strategy.distribution.draw()
    x = torch.rand(2, 3, 8, 8)
    expected = torch.stack([p * block[name](x) for p, name in zip(draw["head_0"], block.names, strict=True)]).sum(0)
    torch.testing.assert_close(block(x), expected)


def test_noise_reaches_activations_and_weights_with_the_scale_of_the_drawn_precision() -> None:
    space, strategy = make_supernet([2, 8])
    layer = next(module for module in space.modules() if isinstance(module, MixedQuantConv2d))
    x = torch.rand(64, layer.in_channels, 32, 32)
    spreads = {}
    for bits in (2, 8):
        decide(strategy, {"__bits": bits})
        with torch.no_grad():
            strategy.distribution.draw()
            of_x, of_weight = layer.input_noise(LayerInput(x)), layer.weight_noise()
        assert (of_x.absolute(x).step / (x.max() - x.min())).item() == pytest.approx(1 / (2**bits - 1))
        assert of_weight.absolute(layer.weight).step.item() == pytest.approx(
            ((layer.weight.max() - layer.weight.min()) / (2**bits - 1)).item()
        )
        assert of_x.unit.shape == x.shape and of_weight.unit.shape == layer.weight.shape
        spreads[bits] = (layer(x) - layer._conv_forward(x, layer.weight, None)).std().item()
    assert spreads[2] == pytest.approx(255 / 3 * spreads[8], rel=0.3)  # few weights, so their noise varies
    space.eval()
    assert torch.equal(layer(x), layer._conv_forward(x, layer.weight, None))


def test_forward_cost_and_entropy_see_the_same_draw() -> None:
    torch.manual_seed(0)
    space = SRBasicSpace(scale=2, width=6, cells=2, adq=False)
    strategy = QuantNAS(costs=[Penalty(BitOps((1, 3, 8, 8)), 1.0)], entropy=1.0, quantization="none")
    strategy.mutate_model(space)
    distribution = strategy.distribution
    draw = distribution.draw()
    before = space(torch.rand(1, 3, 8, 8)), strategy.objective(torch.zeros(()), draw, 1.0, 2)[0]
    decide(strategy, {"_0": "conv_5x5", "__bits": 4})  # logits move, the draw does not
    torch.manual_seed(0)
    SRBasicSpace(scale=2, width=6, cells=2, adq=False)
    x = torch.rand(1, 3, 8, 8)
    unchanged = space(x)
    assert torch.equal(strategy.objective(torch.zeros(()), distribution.current, 1.0, 2)[0], before[1])
    distribution.draw()
    assert not torch.allclose(space(x), unchanged)
    assert not torch.isclose(strategy.objective(torch.zeros(()), distribution.current, 1.0, 2)[0], before[1])


def test_the_derived_network_keeps_the_supernets_weights_and_can_be_built_from_its_choices() -> None:
    from quantnas_ext.architecture import Architecture

    space, strategy = make_supernet([4, 8])
    for logits in strategy.distribution.parameters():
        logits.data.normal_()
    sample = strategy.distribution.most_likely()
    network = space.freeze(sample)
    rebuilt = Architecture(
        "sr_basic", {"scale": 2, "width": 6, "cells": 2, "adq": False, "bits": [4, 8]}, sample
    ).build()
    rebuilt.load_state_dict(network.state_dict(), strict=True)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(rebuilt(x), network(x), rtol=0, atol=0)
    chosen = space.head[0][sample["head_0"]]
    assert torch.equal(network.head[0][1].weight, chosen[1].weight)
    assert network.head[0][1].precision.weight_bits == sample[f"head_0__{sample['head_0']}__bits"]
    assert not any(name.startswith("_") or "logits" in name for name in network.state_dict())


class ForeignSpace(ModelSpace):
    """What a user of NNI may have: index-labelled choices, linear layers, inputs and depths to choose."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MutableQuantConv2d(3, 4, 3, padding=1, bits=nni.choice("stem_bits", [4, 8]))
        self.layer = LayerChoice([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)], label="layer")
        self.inputs = InputChoice(2, n_chosen=1, label="inputs")
        self.depth = Repeat(lambda index: nn.Conv2d(4, 4, 1), nni.choice("depth", [1, 2]))
        self.classifier = MutableQuantLinear(4, 5, bits=nni.choice("classifier_bits", [4, 8]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.depth(self.inputs([self.layer(x), x]))
        return self.classifier(x.mean((2, 3)))


def test_nnis_own_choices_share_the_draw_and_freeze_together_with_ours() -> None:
    torch.manual_seed(0)
    space = ForeignSpace()
    strategy = QuantNAS()
    strategy.mutate_model(space)
    decide(strategy, {"layer": 1, "inputs": 0, "depth": 2, "stem_bits": 4, "classifier_bits": 8})
    draw = strategy.distribution.draw()
    space(torch.rand(2, 3, 8, 8)).sum().backward()
    for label in ("layer", "inputs", "depth", "stem_bits", "classifier_bits"):
        assert strategy.distribution.logits[label].grad is not None, label
        assert draw[label].max() == 1
    sample = strategy.distribution.most_likely()
    assert sample == {"layer": 1, "inputs": [0], "depth": 2, "stem_bits": 4, "classifier_bits": 8}
    network = space.freeze(sample)
    assert isinstance(network.stem, QuantConv2d) and isinstance(network.classifier, QuantLinear)
    network(torch.rand(2, 3, 8, 8))


class DeadEnd(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.layer = MutableQuantConv2d(3, nni.choice("width", [4, 8]), 1, bits=nni.choice("bits", [4, 8]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_what_cannot_be_searched_is_refused_with_its_reason() -> None:
    with pytest.raises(InputError, match="no choices"):
        QuantNAS().mutate_model(type("Empty", (ModelSpace,), {})())
    with pytest.raises(InputError, match=r"searches its out_channels"):
        QuantNAS().mutate_model(DeadEnd())
    with pytest.raises(InputError, match="depth"):
        QuantNAS(costs=[Penalty(BitOps((1, 3, 8, 8)), 1.0)]).mutate_model(ForeignSpace())
    with pytest.raises(InputError, match="did you mean 'uniform'"):
        QuantNAS(noise="uniformly")
