"""Enlarging images with a network: colour through the network, opacity by bicubic interpolation."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from quantnas_ext.sr.degradation import upscale_bicubic
from quantnas_ext.sr.images import Picture, image_to_tensor, tensor_to_image

__all__ = ["upscale", "upscale_picture"]


@torch.no_grad()
def upscale(network: nn.Module, image: np.ndarray) -> np.ndarray:
    """Enlarge one whole image with a network in evaluation mode, on the device where the network is.

    Args:
        network: `[1, 3, h, w]` RGB in [0, 1] to `[1, 3, s h, s w]`.
        image: `uint8 [h, w, 3]`.

    Returns:
        `uint8 [s h, s w, 3]`, clipped and rounded.
    """
    device = next(network.parameters()).device
    return tensor_to_image(network(image_to_tensor(image).to(device)))


def upscale_picture(network: nn.Module, picture: Picture, scale: int) -> np.ndarray:
    """Enlarge a picture and keep what kind it is.

    Args:
        network: As in `upscale`.
        picture: Any picture; greyscale goes through the network as three equal channels and comes back as BT.601 luma.
        scale: The network's scale.

    Returns:
        `uint8 [s h, s w]` (grey), `[s h, s w, 2]` (grey, opacity), `[s h, s w, 3]` or `[s h, s w, 4]` (RGB, opacity).
    """
    enlarged = upscale(network, picture.rgb)
    if picture.grey:
        enlarged = np.array(Image.fromarray(enlarged).convert("L"))
    if picture.alpha is None:
        return enlarged
    return np.dstack([enlarged, upscale_bicubic(picture.alpha, scale)])
