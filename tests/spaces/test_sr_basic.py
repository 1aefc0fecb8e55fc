"""The basic SR space: sizes, NNI's ways of freezing it, errors."""

import math
from typing import Any

import pytest
import torch
from nni.nas.space import model_context
from torch import nn

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.cost import BitOps, ExpectedCost
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import QuantConv2d
from quantnas_ext.reporting.candidates import chosen_candidates
from quantnas_ext.reporting.drawing import architecture_figure
from quantnas_ext.spaces import SRBasicSpace, build_space


def sample_of(space: SRBasicSpace) -> dict[str, Any]:
    sample: dict[str, Any] = {}
    space.random(sample)
    return sample


@pytest.mark.parametrize("adq", [True, False])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_frozen_networks_have_the_right_output_size_for_odd_and_even_inputs(scale: int, adq: bool) -> None:
    space = SRBasicSpace(scale=scale, width=6, adq=adq)
    network = space.freeze(sample_of(space))
    for height, width in ((8, 8), (7, 10), (5, 5)):
        assert network(torch.rand(2, 3, height, width)).shape == (2, 3, scale * height, scale * width)


def test_default_candidates_are_those_of_the_paper() -> None:
    labels = SRBasicSpace().simplify()
    operations = {label: list(choice.values) for label, choice in labels.items() if "__" not in label}
    assert operations == {
        "head_0": ["conv_3x3", "conv_5x5", "conv_3x3_g3", "conv_5x5_g3"],
        "head_1": ["conv_3x3", "conv_5x5", "conv_3x3_g3", "conv_5x5_g3"],
        "body_0": ["fac_5x5", "fac_3x3", "conv_3x3", "conv_5x5"],
        "body_1": ["fac_5x5", "fac_3x3", "conv_3x3", "conv_5x5"],
        "body_skip": ["conv_1x1", "conv_3x3", "conv_5x5"],
        "upsample_0": ["conv_5x5_g3", "conv_3x3_g3", "conv_3x3", "conv_5x5"],
        "tail_0": ["conv_1x1", "conv_3x3", "conv_5x5", "conv_5x5_g3", "conv_3x3_g3"],
        "tail_1": ["conv_1x1", "conv_3x3", "conv_5x5", "conv_5x5_g3", "conv_3x3_g3"],
    }
    assert {tuple(choice.values) for label, choice in labels.items() if label.endswith("__bits")} == {(8, 4)}


def test_freezing_and_building_in_a_context_give_the_same_network_without_the_labels_that_lost() -> None:
    arguments: dict[str, Any] = {"scale": 2, "width": 6, "bits": ["w4a8", 8]}
    space = SRBasicSpace(**arguments)
    sample = sample_of(space)
    needed = {
        label: value
        for label, value in sample.items()
        if "__" not in label or sample[label.split("__")[0]] == label.split("__")[1]
    }
    assert len(needed) == 16 < len(sample)
    with model_context(needed):
        built = SRBasicSpace(**arguments)
    frozen = space.freeze(needed)
    built.load_state_dict(frozen.state_dict(), strict=True)
    x = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(built.eval()(x), frozen.eval()(x), rtol=0, atol=0)
    precisions = {str(module.precision) for module in built.modules() if isinstance(module, QuantConv2d)}
    assert precisions <= {"w4a8", "8"}


def test_cells_share_their_choices_or_make_their_own_and_never_share_weights() -> None:
    shared, own = SRBasicSpace(width=6, cells=3), SRBasicSpace(width=6, cells=3, share_cells=False)
    assert "body_0" in shared.simplify() and "body1_0" not in shared.simplify()
    assert {"body0_0", "body1_0", "body2_0"} <= set(own.simplify())
    weights = [p for name, p in shared.named_parameters() if name.startswith("body")]
    assert len({id(p) for p in weights}) == len(weights)
    assert [stage.repeat for stage in shared.diagram()] == [1, 3, 1, 1] and len(own.diagram()) == 6
    for space in (shared, own):
        drawn = {label for stage in space.diagram() for label in stage.blocks}
        assert drawn == {label for label in space.simplify() if "__" not in label}


@pytest.mark.parametrize("adq", [True, False])
@pytest.mark.parametrize("variant", ["A", "B"])
def test_body_cells_compute_what_their_variant_says(variant: str, adq: bool) -> None:
    blocks = {kind: ["conv_3x3"] for kind in ("head", "body", "skip", "upsample", "tail")}
    space = SRBasicSpace(scale=2, width=6, cells=1, bits=[32], body_variant=variant, adq=adq, **blocks)
    cell = space.freeze(sample_of(space)).body.branch[0].eval()
    x = torch.randn(2, 6, 7, 8)
    branch = cell.branch
    entering = cell.norm(x) if adq else x
    if variant == "A":
        second, parallel = branch.fork.blocks
        first = branch.first(entering)
        expected = 0.2 * (branch.third(second(first)) + parallel(first))
    else:
        first, parallel = branch.entrance.blocks
        expected = branch.second(first(entering)) + parallel(entering)
    if adq:
        expected = expected * 1.5 * x.std(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(cell(x), expected + x)


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize(("head_blocks", "tail_blocks"), [(0, 0), (1, 0), (0, 1), (3, 4)])
def test_head_and_tail_have_any_length(variant: str, head_blocks: int, tail_blocks: int) -> None:
    space = SRBasicSpace(
        scale=3, width=6, cells=1, body_variant=variant, head_blocks=head_blocks, tail_blocks=tail_blocks
    )
    roots = {label for label in space.simplify() if "__" not in label}
    body = {f"body_{index}" for index in range(3 if variant == "A" else 2)} | {"body_skip", "upsample_0"}
    outer = {f"head_{index}" for index in range(head_blocks)} | {f"tail_{index}" for index in range(tail_blocks)}
    assert roots == body | outer
    assert sorted(label for stage in space.diagram() for label in stage.blocks) == sorted(roots)
    network = space.freeze(sample_of(space))
    assert network(torch.rand(1, 3, 6, 7)).shape == (1, 3, 18, 21)
    if not head_blocks:
        x = torch.rand(1, 3, 4, 4)
        assert torch.equal(network.head(x), torch.cat([x, x], 1))
    if not tail_blocks:
        x = torch.rand(1, 3, 4, 4)
        assert torch.equal(network.tail(x), x)


@pytest.mark.parametrize(("tail_blocks", "last"), [(2, "tail_1"), (0, "upsample_0")])
def test_the_first_and_the_last_block_can_have_a_precision_of_their_own(tail_blocks: int, last: str) -> None:
    space = SRBasicSpace(scale=2, width=6, bits=[4, 8], first_bits="w8a16", last_bits=6, tail_blocks=tail_blocks)
    for label, choice in space.simplify().items():
        if label.endswith("__bits"):
            expected = {"head_0": ("w8a16",), last: (6,)}.get(label.split("__")[0], (4, 8))
            assert tuple(choice.values) == expected, label


def test_skip_connect_is_searched_frozen_and_costed_like_any_candidate_but_has_no_precision() -> None:
    arguments: dict[str, Any] = {"scale": 2, "width": 6, "cells": 1, "skip": ["skip_connect", "conv_1x1"]}
    space = SRBasicSpace(**arguments)
    tree = {choice.label: choice for choice in ChoiceTree.of(space)}
    assert "body_skip__conv_1x1__bits" in tree and "body_skip__skip_connect__bits" not in tree
    cost = BitOps((1, 3, 8, 8))
    distribution = ArchitectureDistribution(ChoiceTree.of(space))
    for logits in distribution.parameters():
        logits.data.zero_()
    roots = [root.label for root in ChoiceTree.of(space).roots()]
    entropies = dict(zip(roots, distribution.block_entropies(), strict=True))
    # p = (1/2, 1/2 * (1/2, 1/2)): the identity is one candidate, the convolution one for each of its two precisions.
    assert float(entropies["body_skip"].detach()) == pytest.approx(1.5 * math.log(2))
    sample = {**distribution.most_likely(), "body_skip": "skip_connect"}
    sample.pop("body_skip__conv_1x1__bits", None)
    architecture = Architecture.of("sr_basic", arguments, sample)
    network = space.freeze(sample)
    assert isinstance(network.body.branch[0].branch.entrance.blocks[1], nn.Identity)
    architecture.build().load_state_dict(network.state_dict(), strict=True)
    assert ExpectedCost(cost, space, distribution).of(sample) == cost.of_network(network)
    assert architecture.with_precision(32).choices["body_skip"] == "skip_connect"
    drawn = architecture_figure(space.diagram(), chosen_candidates(ChoiceTree.of(space), sample)).axes[0].texts
    assert "skip_connect" in {text.get_text() for text in drawn}


def test_there_is_no_interpolated_image_path() -> None:
    space = SRBasicSpace(scale=2, width=6, adq=False)
    network = space.freeze(sample_of(space))
    for module in network.modules():
        if isinstance(module, QuantConv2d):
            nn.init.zeros_(module.weight)
            module.reset_steps()
    assert network(torch.rand(1, 3, 6, 6)).abs().max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 5}, "scale 5 is not possible; use one of 2, 3, 4"),
        ({"width": 0}, "width 0"),
        ({"width": 8}, "multiple of 3"),
        ({"cells": 1.5}, "cells 1.5"),
        ({"scale": True}, "scale True"),
        ({"body_variant": "C"}, "unknown body variant 'C'.*A, B"),
        ({"head_blocks": -1}, "head_blocks -1 .* at least 0"),
        ({"tail_blocks": None}, "tail_blocks None"),
        ({"head_blocks": 0, "width": 20}, "width 20 .* multiple of 3, for example 18 or 21"),
        ({"head_blocks": 0, "first_bits": 8}, "head_blocks of at least 1"),
        ({"first_bits": 1}, "1 bits"),
        ({"body": ["decenc_3x3_8"]}, "'decenc_3x3_8' of block 'body_0'"),
        ({"tail": ["decrease_1x1"]}, "3 channels cannot be halved"),
        ({"bits": [1]}, "1 bits"),
        ({"bits": []}, r"bits \[\] of the space should be a list of precisions"),
        ({"body": ["conv_3x4"]}, "did you mean 'conv_3x3'"),
        ({"widht": 8}, "did you mean 'width'"),
        ({"bits": 8}, r"bits 8 of the space should be a list of precisions, such as \[4, 8\]"),
        ({"bits": "48"}, "bits '48'"),
        ({"bits": {4: 8}}, "bits {4: 8}"),
        ({"scale": 2.0}, "scale 2.0 is not possible"),
        ({"scale": [2]}, "scale .2. is not possible"),
        ({"width": 4098}, "width 4098 .* at most 4096"),
        ({"width": 10**5000}, "too long to show .* at most 4096"),
        ({"cells": 257}, "cells 257 .* at most 256"),
        ({"adq": "false"}, "adq 'false' .* true or false"),
        ({"share_cells": 1}, "share_cells 1 .* True or False"),
        ({"head": "conv_3x3"}, r"head 'conv_3x3' .* write \[conv_3x3\]"),
        ({"tail": [3]}, "tail .3. .* list of operations"),
        ({"body": {"conv_3x3": 1}}, "body .* list of operations"),
        ({"body_variant": ["B"]}, "unknown body variant"),
        ({"first_bits": {"w": 4}}, "is not a precision"),
    ],
)
def test_bad_arguments_are_named_with_what_would_be_right(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_space("sr_basic", arguments)


def test_an_unknown_space_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'sr_basic'"):
        build_space("sr_basik", {})


def test_the_forward_pass_is_that_of_the_definition() -> None:
    torch.manual_seed(0)
    space = SRBasicSpace(
        scale=2,
        width=6,
        cells=2,
        adq=False,
        bits=[32],
        head=["conv_3x3"],
        body=["fac_3x3", "conv_5x5"],
        skip=["conv_1x1"],
        upsample=["conv_3x3"],
        tail=["conv_5x5"],
    )
    sample = {label: choice.values[0] for label, choice in space.simplify().items()}
    network = space.freeze({**sample, "body_1": "conv_5x5"})
    weights = [module.weight for module in network.modules() if isinstance(module, QuantConv2d)]
    assert len(weights) == 2 + 2 * 4 + 1 + 2

    def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x.relu(), weight, padding=(weight.shape[2] // 2, weight.shape[3] // 2))

    x = torch.randn(2, 3, 7, 9)
    features = convolve(convolve(x, weights[0]), weights[1])
    y = features
    for cell in range(2):
        column, row, parallel, second = weights[2 + 4 * cell : 6 + 4 * cell]
        y = y + convolve(convolve(convolve(y, column), row), second) + convolve(y, parallel)
    large = nn.functional.pixel_shuffle(convolve(y + features, weights[10]), 2)
    expected = large + convolve(convolve(large, weights[11]), weights[12])
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)
