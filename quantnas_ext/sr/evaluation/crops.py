"""The same crop of an image as low resolution, bicubic, by several networks and as it was: pictures for a report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from quantnas_ext.sr.data.degradation import upscale_bicubic
from quantnas_ext.sr.data.evaluation_pairs import EvaluationPairs
from quantnas_ext.sr.evaluation.comparison import telling_region
from quantnas_ext.sr.evaluation.metrics import psnr_y
from quantnas_ext.sr.evaluation.upscaling import upscale

CROP = 96
"""Side in high-resolution pixels; divisible by 2, 3 and 4."""


def image_crops(
    folder: str | Path,
    scale: int,
    networks: Mapping[str, nn.Module],
    *,
    images: int = 3,
    crop: int = CROP,
    nested: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """The most detailed square of the first images of a folder, by every network, enlarged whole and then cut.

    The square is chosen by the original alone, so that it is the same for every network.

    Args:
        folder: a dataset folder or a folder of high-resolution images (``EvaluationPairs``).
        scale: of the networks.
        networks: by name; in evaluation mode, as in ``upscaling.upscale``.
        images: how many images at most.
        crop: side of the square in high-resolution pixels, or the shortest side of a smaller image.
        nested: whether images in subfolders of the folder are among them.

    Returns:
        By name of the network, for every image ``{"image", "side", "scale", "psnr": {"bicubic", "ours"}, "lr",
        "bicubic", "ours", "hr"}``: side in high-resolution pixels, PSNR on Y of the whole image in dB, and crops as
        lossless WebP.

    Raises:
        InputError: as ``EvaluationPairs``.
    """
    pairs = EvaluationPairs(folder, scale, nested=nested)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in networks}
    for index in range(min(images, len(pairs))):
        pair = pairs[index]
        bicubic = upscale_bicubic(pair.lr, scale)
        side = min(crop, *pair.hr.shape[:2]) // scale * scale
        top, left = telling_region(pair.hr, [bicubic], side, scale)
        same = {
            "image": pair.name,
            "side": side,
            "scale": scale,
            "lr": _webp(pair.lr[top // scale : (top + side) // scale, left // scale : (left + side) // scale]),
            "bicubic": _webp(bicubic[top : top + side, left : left + side]),
            "hr": _webp(pair.hr[top : top + side, left : left + side]),
        }
        of_bicubic = psnr_y(bicubic, pair.hr, scale)
        for name, network in networks.items():
            result = upscale(network, pair.lr)
            psnr = {"bicubic": of_bicubic, "ours": psnr_y(result, pair.hr, scale)}
            ours = _webp(result[top : top + side, left : left + side])
            found[name].append({**same, "psnr": psnr, "ours": ours})
    return found


def _webp(image: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(image).save(written, "WEBP", lossless=True, quality=100, method=6)
    return written.getvalue()
