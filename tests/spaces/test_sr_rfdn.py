"""The RFDN-like SR space: sizes, parameters, costs and freezing against its definition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nni.nas.space import model_context
from torch import nn
from torch.nn import functional as F

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.cost import BitOps, ExpectedCost
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.nn import ESA, ADQResidual
from quantnas_ext.quantization import QuantConv2d
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRRFDNSpace, build_space

SHAPE = (1, 3, 17, 21)
SMALL: dict[str, Any] = {"scale": 2, "width": 12, "cells": 2}
FEW: dict[str, Any] = {
    "body": ["skip_connect", "conv_3x3"],
    "distil": ["conv_1x1", "growth1_3x3"],
    "upsample": ["conv_1x1", "conv_3x3_g2"],
    "tail": ["skip_connect", "conv_3x3"],
}


def space(**arguments: Any) -> SRRFDNSpace:
    return SRRFDNSpace(**{**SMALL, **arguments})


def one_hot(model: SRRFDNSpace, seed: int = 0) -> tuple[ArchitectureDistribution, dict[str, Any]]:
    """A distribution with all weight on one random architecture, and that architecture's needed choices."""
    distribution = ArchitectureDistribution(ChoiceTree.of(model))
    torch.manual_seed(seed)
    for logits in distribution.parameters():
        logits.data = torch.where(torch.arange(len(logits)) == torch.randint(len(logits), ()), 1e4, -1e4)
    return distribution, distribution.most_likely()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("adq", [True, False])
def test_frozen_networks_have_the_right_output_size_for_odd_and_even_inputs(scale: int, adq: bool) -> None:
    model = space(scale=scale, adq=adq)
    network = model.freeze(one_hot(model)[1])
    assert network.scale == scale
    for height, width in ((16, 16), (17, 22), (15, 15)):
        assert network(torch.rand(2, 3, height, width)).shape == (2, 3, scale * height, scale * width)


def test_default_candidates_are_those_of_the_paper() -> None:
    kernels = ("1x1", "3x3", "5x5")
    tail = [f"{kind}_{kernel}" for kind in ("conv", "growth1") for kernel in kernels]
    others = [*tail, *(f"conv_{kernel}_g2" for kernel in kernels)]
    labels = SRRFDNSpace().simplify()
    found = {label: list(choice.values) for label, choice in labels.items() if "__" not in label}
    blocks = [*(f"body_{j}" for j in range(4)), *(f"distil_{j}" for j in range(3)), "upsample_0"]
    assert found == {**dict.fromkeys(blocks, others), "tail_0": tail}
    assert {tuple(choice.values) for label, choice in labels.items() if label.endswith("__bits")} == {(4, 8)}
    assert list(space(scale=3).simplify()["upsample_0"].values) == tail


@pytest.mark.parametrize(("width", "cells", "scale"), [(48, 4, 4), (24, 2, 3)])
def test_a_fixed_architecture_has_the_parameters_that_its_definition_says(width: int, cells: int, scale: int) -> None:
    c, f = width, width // 4
    choices = {f"body_{j}": "conv_3x3" for j in range(4)} | {f"distil_{j}": "conv_1x1" for j in range(3)}
    choices |= {"upsample_0": "conv_3x3", "tail_0": "growth1_3x3"}
    choices |= {f"{block}__{operation}__bits": 8 for block, operation in choices.items()}
    arguments = {"scale": scale, "width": width, "cells": cells}
    network = Architecture("sr_rfdn", arguments, choices).build()

    esa = c * f + 9 * f * f + 3 * 9 * f * f + f * f + f * c
    searched = 3 * 9 * c * c + 9 * c * (c // 2) + 3 * c * (c // 2)  # body_0..2, body_3, distil_0..2
    cell = searched + 4 * (c // 2) * c + esa
    batch_norm_and_rescaling = 2 * c + 2
    fused = cells * c * c + 9 * c * c
    upsample, tail = 9 * c * 3 * scale**2, 9 * (3 * c + c * 3)
    weights = cells * cell + fused + upsample + tail
    parameters = dict(network.named_parameters())
    steps = {name: p for name, p in parameters.items() if name.endswith("log_step")}
    assert sum(p.numel() for p in parameters.values()) - sum(p.numel() for p in steps.values()) == (
        weights + cells * batch_norm_and_rescaling
    )
    layers = [module for module in network.modules() if isinstance(module, QuantConv2d)]
    assert sum(p.numel() for p in steps.values()) == sum(layer.out_channels + 1 for layer in layers)
    assert len(layers) == cells * (7 + 1 + 7) + 2 + 1 + 2
    assert all(layer.bias is None for layer in layers)


def reference(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The definition, written out with functions for full-precision conv_3x3 blocks, two cells, no ADQ."""

    def conv(layer: QuantConv2d, x: torch.Tensor, **geometry: int) -> torch.Tensor:
        return F.conv2d(x, layer.weight, **geometry)

    def block(module: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        return conv(module[1], x.relu(), padding=1)

    features = start = x.repeat(1, 4, 1, 1)
    outputs = []
    for cell in network.body.branch.cells:
        branch, into = cell.branch, features
        d = []
        for step in branch.steps:
            distil, body = step.blocks
            d.append(block(distil, features))
            features = features + block(body, features)
        d.append(block(branch.last, features))
        fused = conv(branch.fuse, torch.cat(d, 1))
        esa = branch.attention
        a = conv(esa.reduce, fused)
        b = F.max_pool2d(conv(esa.shrink, a, stride=2), 7, 3)
        for layer in esa.far:
            b = conv(layer, b, padding=1)
        b = F.interpolate(b, fused.shape[2:], mode="bilinear", align_corners=False)
        features = fused * conv(esa.expand, b + conv(esa.near, a)).sigmoid() + into
        outputs.append(features)
    whole = network.body.branch
    features = conv(whole.refine, conv(whole.fuse, torch.cat(outputs, 1)), padding=1) + start
    y = F.pixel_shuffle(block(network.upsample[0], features), 2)
    return y + block(network.tail.branch, y)


def test_the_output_is_that_of_the_definition_written_out() -> None:
    only = {kind: ["conv_3x3"] for kind in ("body", "distil", "upsample", "tail")}
    model = space(adq=False, bits=[32], **only)
    network = model.freeze(one_hot(model)[1])
    assert all(layer.precision.weight_bits == 32 for layer in network.modules() if isinstance(layer, QuantConv2d))
    x = torch.rand(2, 3, 20, 23)
    torch.testing.assert_close(network(x), reference(network, x))
    assert sum(isinstance(module, ADQResidual) for module in space(adq=True).modules()) == SMALL["cells"]
    assert not any(isinstance(module, ADQResidual) for module in model.modules())


@pytest.mark.parametrize("share_cells", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_one_hot_expected_bitops_equal_an_independent_counters(
    seed: int, share_cells: bool, independent_bitops: Callable[..., float]
) -> None:
    model = space(share_cells=share_cells, bits=["w4a8", 8, 32], fixed_bits="w8a8", **FEW)
    distribution, sample = one_hot(model, seed)
    counted = independent_bitops(model.freeze(sample), SHAPE)
    cost = ExpectedCost(BitOps(SHAPE), model, distribution)
    assert float(cost(distribution.draw()).detach()) == pytest.approx(counted, rel=1e-9)
    assert cost.of(sample) == counted > 0
    always = cost.terms[frozenset()]
    fixed = [module for module in model.modules() if type(module) is QuantConv2d]
    assert len(fixed) == 2 + 2 * (1 + 7) and always > 0
    assert {str(layer.precision) for layer in fixed} == {"8"}
    assert all(layer.activation_quantizer.signed for layer in fixed)


def test_freezing_and_building_in_a_context_give_the_same_network_strictly() -> None:
    for share_cells in (True, False):
        arguments = {**SMALL, "share_cells": share_cells}
        model = SRRFDNSpace(**arguments)
        sample = one_hot(model)[1]
        with model_context(sample):
            built = SRRFDNSpace(**arguments)
        frozen = model.freeze(sample)
        built.load_state_dict(frozen.state_dict(), strict=True)
        x = torch.rand(2, 3, 16, 19)
        torch.testing.assert_close(built.eval()(x), frozen.eval()(x), rtol=0, atol=0)


def test_a_search_reaches_every_logit_and_the_derived_network_is_built_from_its_choices() -> None:
    torch.manual_seed(0)
    arguments = {
        **SMALL,
        "scale": 2,
        **FEW,
        "body": ["skip_connect", "conv_3x3", "conv_1x1"],
        "upsample": ["conv_1x1", "increase_1x1"],
    }
    model = SRRFDNSpace(**arguments)
    strategy = QuantNAS()
    strategy.mutate_model(model)
    strategy.distribution.draw()
    model(torch.rand(2, 3, 16, 16)).square().mean().backward()
    gradients = {label: logits.grad for label, logits in strategy.distribution.logits.items()}
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())
    assert "tail_0__skip_connect__bits" not in gradients
    for logits in strategy.distribution.parameters():
        logits.data.normal_()
    architecture = Architecture.of("sr_rfdn", arguments, strategy.distribution.most_likely())
    network = model.freeze(strategy.distribution.most_likely())
    rebuilt = architecture.build()
    rebuilt.load_state_dict(network.state_dict(), strict=True)
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(rebuilt.eval()(x), network.eval()(x), rtol=0, atol=0)


def test_cells_share_their_choices_or_make_their_own_and_all_blocks_are_drawn() -> None:
    shared, own = space(), space(share_cells=False)
    assert "body_3" in shared.simplify() and "body0_3" not in shared.simplify()
    assert {"body0_0", "body1_3", "distil1_2"} <= set(own.simplify())
    for model in (shared, own):
        drawn = [label for stage in model.diagram() for label in stage.blocks]
        assert sorted(drawn) == sorted(label for label in model.simplify() if "__" not in label)
    assert [stage.repeat for stage in shared.diagram()] == [2, 1, 1] and len(own.diagram()) == 4


def test_precisions_of_first_last_and_fixed_layers_can_be_set() -> None:
    model = space(share_cells=False, first_bits=16, last_bits="w8a4", fixed_bits=6)
    values = {label: tuple(c.values) for label, c in model.simplify().items() if label.endswith("__bits")}
    assert {v for label, v in values.items() if label.startswith(("body0_0", "distil0_0"))} == {(16,)}
    assert {v for label, v in values.items() if label.startswith("tail_0")} == {("w8a4",)}
    others = {v for label, v in values.items() if not label.startswith(("body0_0", "distil0_0", "tail_0"))}
    assert others == {(4, 8)}
    assert {str(layer.precision) for layer in model.modules() if type(layer) is QuantConv2d} == {"6"}


def test_one_precision_for_an_architecture_leaves_fixed_layers_alone_except_in_full_precision() -> None:
    arguments = {**SMALL, **FEW, "last_bits": 8, "fixed_bits": 8}
    architecture = Architecture.of("sr_rfdn", arguments, one_hot(SRRFDNSpace(**arguments))[1])
    for bits, expected in ((4, {"4", "8"}), (32, {"32"})):
        network = architecture.with_precision(bits).build()
        layers = [layer for layer in network.modules() if isinstance(layer, QuantConv2d)]
        assert {str(layer.precision) for layer in layers} == expected
    fixed = [layer for layer in architecture.with_precision(4).build().modules() if isinstance(layer, ESA)]
    assert all(str(layer.near.precision) == "8" for layer in fixed)


def test_inputs_too_small_for_esa_are_refused_with_the_smallest_size() -> None:
    network = space().freeze(one_hot(space())[1])
    for size in ((14, 40), (40, 14)):
        message = f"{size[0]} x {size[1]} pixels is too small .* at least 15 pixels"
        with pytest.raises(InputError, match=message):
            network(torch.rand(1, 3, *size))
    with pytest.raises(InputError, match="14 x 20 pixels is too small"):
        BitOps((1, 3, 14, 20)).terms(space())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 1}, "scale 1 is not possible"),
        ({"width": 50}, "width 50 .* multiple of 12, for example 48 or 60"),
        ({"width": 6}, "multiple of 12, for example 12$"),
        ({"cells": 0}, "cells 0"),
        ({"distil": ["skip_connect"]}, "'skip_connect' of block 'distil_0' .* from 12 to 6 channels"),
        ({"body": ["skip_connect"]}, "'body_3' has no candidate operations"),
        ({"tail": ["conv_3x3_g2"]}, "'conv_3x3_g2' of block 'tail_0'"),
        ({"fixed_bits": 1}, "1 bits"),
        ({"first_bits": 8}, "share_cells: false"),
        ({"head": ["conv_3x3"]}, "'head'"),
        ({"width": 4104}, "at most 4096"),
        ({"adq": "maybe"}, "adq 'maybe' .* true or false"),
        ({"upsample": "conv_3x3"}, r"write \[conv_3x3\]"),
        ({"bits": "48"}, "bits '48' .* list of precisions"),
    ],
)
def test_bad_arguments_are_named_with_what_would_be_right(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_space("sr_rfdn", {**SMALL, **arguments})
