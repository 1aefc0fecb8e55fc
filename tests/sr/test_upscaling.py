from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from quantnas_ext.sr.data.images import Picture
from quantnas_ext.sr.evaluation.upscaling import upscale, upscale_picture


class Repeat(nn.Module):
    """Every pixel becomes a square of four."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_colours_keep_their_channels_and_places(photographs: dict[str, np.ndarray]) -> None:
    image = photographs["coffee"]
    assert np.array_equal(upscale(Repeat(), image)[::2, 1::2], image)


def test_grey_stays_grey_and_opacity_is_kept(photographs: dict[str, np.ndarray]) -> None:
    image = photographs["coffee"]
    grey = np.dstack([image[..., 1]] * 3)
    opaque = np.full(image.shape[:2], 255, np.uint8)
    network = Repeat()
    assert upscale_picture(network, Picture(image, None, grey=False), 2).shape == (240, 260, 3)
    with_alpha = upscale_picture(network, Picture(image, opaque, grey=False), 2)
    assert with_alpha.shape == (240, 260, 4) and (with_alpha[..., 3] == 255).all()
    assert np.array_equal(upscale_picture(network, Picture(grey, None, grey=True), 2)[::2, ::2], image[..., 1])
    assert upscale_picture(network, Picture(grey, opaque, grey=True), 2).shape == (240, 260, 2)
