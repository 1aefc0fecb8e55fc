"""The basic SR space: sizes, NNI's ways of freezing it, errors."""

from typing import Any

import pytest
import torch
from nni.nas.space import model_context
from torch import nn

from quantnas_ext.errors import InputError
from quantnas_ext.quantization import QuantConv2d
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
        drawn = {label for stage in space.diagram() for branch in stage.branches for label in branch}
        assert drawn == {label for label in space.simplify() if "__" not in label}


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
        ({"bits": [1]}, "1 bits"),
        ({"bits": []}, "empty"),
        ({"body": ["conv_3x4"]}, "did you mean 'conv_3x3'"),
        ({"widht": 8}, "did you mean 'width'"),
        ({"bits": 8}, "cannot be built"),
    ],
)
def test_bad_arguments_are_named_with_what_would_be_right(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_space("sr_basic", arguments)


def test_an_unknown_space_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'sr_basic'"):
        build_space("sr_basik", {})
