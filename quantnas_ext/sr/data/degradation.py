"""How low-resolution images are made: cropping, MATLAB-compatible antialiased bicubic, rounding to 8 bits.

The protocol of the super-resolution literature (Timofte et al., NTIRE 2017, "bicubic" track), through BasicSR's
``imresize``, which reproduces MATLAB's.
"""

from __future__ import annotations

import numpy as np

from quantnas_ext import compat
from quantnas_ext.errors import InputError

SCALES = (2, 3, 4)
"""Factors between the sides of a low-resolution image and its high-resolution original."""

_SUPPORT = 4
"""Pixels that the cubic kernel covers, counted at the lower resolution; ``imresize`` needs sides at least as long."""


def check_scale(scale: int) -> int:
    """The scale itself.

    Raises:
        InputError: it is not one of ``SCALES``.
    """
    if scale not in SCALES:
        raise InputError(f"scale {scale} is not supported; use one of {', '.join(map(str, SCALES))}")
    return scale


def crop_to_multiple(image: np.ndarray, scale: int) -> np.ndarray:
    """``[h, w, ...]`` without the last rows and columns, so that both sides are multiples of ``scale``."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def downscale(image: np.ndarray, scale: int, name: object = "image") -> np.ndarray:
    """The low-resolution image of a high-resolution one.

    Args:
        image: ``uint8 [h, w, 3]``, sides multiples of ``scale`` (``crop_to_multiple``).
        scale: factor by which both sides shrink.
        name: how an error names the image.

    Returns:
        ``uint8 [h / scale, w / scale, 3]``.

    Raises:
        InputError: the image is too small for the filter.
    """
    height, width = image.shape[:2]
    if min(height, width) < _SUPPORT * scale:
        raise InputError(
            f"image '{name}' of {width}x{height} pixels is too small for scale {scale}; "
            f"give images of at least {_SUPPORT * scale} pixels a side"
        )
    return _resize(image, 1 / scale)


def upscale_bicubic(image: np.ndarray, scale: int) -> np.ndarray:
    """``uint8 [h, w]`` or ``[h, w, 3]`` by the same filter enlarged to ``[h scale, w scale, ...]``, the baseline."""
    short = [max(0, _SUPPORT - side) for side in image.shape[:2]]
    if any(short):  # an image of a pixel or two is extended by its border and cut back
        padding = [(0, short[0]), (0, short[1]), *[(0, 0)] * (image.ndim - 2)]
        enlarged = _resize(np.pad(image, padding, mode="edge"), scale)
        return enlarged[: image.shape[0] * scale, : image.shape[1] * scale]
    return _resize(image, scale)


def _resize(image: np.ndarray, factor: float) -> np.ndarray:
    """BasicSR's ``imresize`` on 8-bit images: scaled to [0, 1] for the filter, clipped and rounded after it."""
    compat.prepare_basicsr()
    # Here, as most who ask for a scale do not resize, and this loads torch.
    from basicsr.utils.matlab_functions import imresize

    resized = imresize(image.astype(np.float32) / 255.0, factor)
    return (resized.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)
