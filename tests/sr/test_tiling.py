"""Tiles give the pixels of the whole image, from a bounded number of pixels at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from quantnas_ext.architecture import Architecture
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.nn import ESA, ADQResidual
from quantnas_ext.spaces import build_space
from quantnas_ext.sr.data.degradation import upscale_bicubic
from quantnas_ext.sr.data.images import image_to_tensor, tensor_to_image
from quantnas_ext.sr.evaluation import upscaling
from quantnas_ext.sr.evaluation.results import check_tile
from quantnas_ext.sr.evaluation.tiling import tile_margin, upscale_tiles
from quantnas_ext.sr.evaluation.upscaling import upscale, upscale_opacity

IMAGE = data.coffee()[100:211, 200:331]
"""111 x 131 pixels: no multiple of anything."""


def quantized(space: str, scale: int = 2, **arguments: Any) -> Any:
    """A network with started steps, in evaluation mode; of every block the first operation."""
    arguments = {"scale": scale, "width": 12, "cells": 1, "bits": [8], **arguments}
    tree = ChoiceTree.of(build_space(space, arguments))
    sample = {choice.label: choice.values[0] for choice in tree}
    torch.manual_seed(scale)
    network = Architecture.of(space, arguments, tree.complete(sample)).build()
    for part in (IMAGE[:48, :48], IMAGE[40:88, 60:108]):
        network(image_to_tensor(part))
    return network.eval()


class InDouble(nn.Module):
    """A network in double precision that gives the part of its output below a 255th, times 255."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.double()) * 255 % 1


PLAIN = {"adq": False, "head": ["conv_3x3"], "body": ["fac_3x3"], "skip": ["conv_1x1"]}
CASES = [
    *(("sr_basic", scale, PLAIN) for scale in (2, 3, 4)),
    ("sr_basic", 2, {"adq": True}),
    ("sr_basic", 3, {"adq": "adadm", "body_variant": "A"}),
    *(("sr_rfdn", scale, {"adq": False, "body": ["conv_3x3"], "distil": ["conv_3x3"]}) for scale in (2, 3)),
    ("sr_rfdn", 4, {"adq": True, "body": ["conv_3x3"], "distil": ["conv_1x1"]}),
]


@pytest.mark.parametrize(("space", "scale", "arguments"), CASES)
def test_tiles_have_the_pixels_of_the_whole_image(space: str, scale: int, arguments: dict[str, Any]) -> None:
    network = quantized(space, scale, **arguments)
    margin = tile_margin(network)
    assert margin is not None and 0 < margin < 60 and margin % 6 == 0
    with torch.no_grad():
        whole = tensor_to_image(network(image_to_tensor(IMAGE)))
        assert whole.std() > 1
        assert np.array_equal(upscale_tiles(network, IMAGE, 96, margin), whole)
        # Below the eight bits of a pixel there are eight more in which nothing differs.
        fine = InDouble(network)
        assert np.array_equal(upscale_tiles(fine, IMAGE, 48, margin), tensor_to_image(fine(image_to_tensor(IMAGE))))
    assert not any("seen_from_afar" in vars(module) or "deviation" in vars(module) for module in network.modules())


def test_a_margin_is_as_wide_as_the_network_sees() -> None:
    narrow = quantized("sr_basic", **PLAIN, upsample=["conv_3x3"], tail=["conv_3x3"])
    # Head 1 + 1, body 1 + 1, upsampling 1, tail (1 + 1) / 2 low-resolution pixels.
    assert tile_margin(narrow) == 6
    wide = quantized("sr_basic", **{**PLAIN, "head": ["conv_5x5"]}, upsample=["conv_3x3"], tail=["conv_3x3"])
    assert tile_margin(wide) == 12
    margin = 6
    whole, cut = upscale_tiles(narrow, IMAGE, 48, margin), upscale_tiles(narrow, IMAGE, 48, 0)
    assert not np.array_equal(whole, cut)


def test_no_more_pixels_than_a_tile_with_its_margin_are_in_the_network_at_once() -> None:
    network = quantized("sr_basic", adq=True, head=["conv_3x3"], body=["fac_3x3"])
    margin = tile_margin(network)
    assert margin is not None
    seen: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, 0].numel()))
    large = np.tile(IMAGE, (2, 2, 1))
    upscale_tiles(network, large, 48, margin)
    assert max(seen) <= (48 + 2 * margin) ** 2 < large[..., 0].size / 10
    seen.clear()
    upscale(network, IMAGE, tile=140)
    upscale(network, IMAGE, tile=0)
    assert seen == [IMAGE[..., 0].size] * 2


def test_networks_whose_pixels_tiles_would_change_are_enlarged_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = quantized("sr_basic", **PLAIN)
    next(module for module in fresh.modules() if hasattr(module, "started")).reset()
    strided = nn.Sequential(nn.Conv2d(3, 3, 3, stride=2, padding=1), nn.Upsample(scale_factor=4)).eval()
    monkeypatch.setattr(upscaling, "upscale_tiles", None)
    for network in (fresh, strided):
        assert tile_margin(network) is None
        assert upscale(network, IMAGE[:100, :100], tile=48).shape == (200, 200, 3)
    assert tile_margin(quantized("sr_basic", **PLAIN).train()) is None


def test_opacity_in_strips_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upscaling, "_STRIP", 40)
    for scale in (2, 3, 4):
        alpha = IMAGE[:101, :97, 0]
        assert np.array_equal(upscale_opacity(alpha, scale), upscale_bicubic(alpha, scale))


def test_evaluation_computes_as_training_does_up_to_rounding() -> None:
    x = torch.rand(2, 12, 31, 47, generator=torch.Generator().manual_seed(0))
    attention, residual = ESA(12, bits=32), ADQResidual(nn.Identity(), 12)
    assert torch.allclose(attention.train()(x), attention.eval()(x), atol=1e-6)
    assert torch.allclose(residual.train().deviation(x), residual.eval().deviation(x), rtol=1e-6)
    assert residual.eval().deviation(torch.full((1, 12, 64, 64), 0.7)).item() < 1e-6


def test_impossible_tiles_are_refused() -> None:
    assert check_tile(0) == 0 and check_tile(24) == 24
    for tile in (-5, 1, 23):
        with pytest.raises(InputError, match=f"a tile of {tile} pixels is not possible"):
            check_tile(tile)
