"""Enlarging images with a network: colour through the network, opacity by bicubic interpolation."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from quantnas_ext.sr.data.degradation import upscale_bicubic
from quantnas_ext.sr.data.images import Picture, image_to_tensor, tensor_to_image
from quantnas_ext.sr.evaluation.results import TILE
from quantnas_ext.sr.evaluation.tiling import tile_margin, upscale_tiles

_STRIP = 512
"""Rows of opacity that are enlarged at once."""

_OPACITY_MARGIN = 4
"""Rows around them that bicubic interpolation looks at, and a few more."""


@torch.no_grad()
def upscale(network: nn.Module, image: np.ndarray, *, tile: int = TILE) -> np.ndarray:
    """Enlarge one image with a network in evaluation mode, on the device where the network is.

    An image larger than a tile is enlarged tile by tile, in memory that its size hardly matters to, and has the pixels
    that it would have whole. Where tiles would change them (``tile_margin`` is None), it is enlarged whole all the
    same.

    Args:
        network: ``[1, 3, h, w]`` RGB in [0, 1] to ``[1, 3, s h, s w]``.
        image: ``uint8 [h, w, 3]``.
        tile: side of a tile in low-resolution pixels; 0 enlarges every image whole.

    Returns:
        ``uint8 [s h, s w, 3]``, clipped and rounded.
    """
    if tile and image.shape[0] * image.shape[1] > tile * tile:
        margin = tile_margin(network)
        if margin is not None and image.shape[0] * image.shape[1] > (tile + 2 * margin) ** 2:
            return upscale_tiles(network, image, tile, margin)
    device = next(network.parameters()).device
    return tensor_to_image(network(image_to_tensor(image).to(device)))


def upscale_opacity(alpha: np.ndarray, scale: int) -> np.ndarray:
    """``upscale_bicubic`` of ``uint8 [h, w]``, some rows at a time: the same pixels, in little memory."""
    height, width = alpha.shape
    result = np.empty((height * scale, width * scale), np.uint8)
    for top in range(0, height, _STRIP):
        bottom, start = min(top + _STRIP, height), max(0, top - _OPACITY_MARGIN)
        strip = upscale_bicubic(alpha[start : bottom + _OPACITY_MARGIN], scale)
        result[top * scale : bottom * scale] = strip[(top - start) * scale : (bottom - start) * scale]
    return result


def upscale_picture(network: nn.Module, picture: Picture, scale: int, *, tile: int = TILE) -> np.ndarray:
    """Enlarge a picture and keep what kind it is.

    Args:
        network: as in ``upscale``.
        picture: any picture; greyscale goes through the network as three equal channels and comes back as BT.601 luma.
        scale: the network's scale.
        tile: as in ``upscale``.

    Returns:
        ``uint8 [s h, s w]`` (grey), ``[s h, s w, 2]`` (grey, opacity), ``[s h, s w, 3]`` or ``[s h, s w, 4]`` (RGB,
        opacity).
    """
    enlarged = upscale(network, picture.rgb, tile=tile)
    if picture.grey:
        enlarged = np.array(Image.fromarray(enlarged).convert("L"))
    if picture.alpha is None:
        return enlarged
    return np.dstack([enlarged, upscale_opacity(picture.alpha, scale)])
