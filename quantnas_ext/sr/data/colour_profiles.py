"""Colour profiles (ICC) embedded in image files: colours are converted to sRGB, in which everything here computes."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}
"""Pixel modes of Pillow, and what a profile for them says it is for."""


def profile_fits(profile: bytes | None, mode: str) -> bool:
    """Whether colours of a mode (``L``, ``RGB``, ``CMYK``, ``LAB``) can be converted by a profile; True without one."""
    return not profile or _conversion(profile, mode)[1]


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The colours of an image in sRGB, by relative colorimetric intent with black point compensation (LittleCMS).

    Without a profile, or with one that is damaged or made for other pixels, colours are taken as sRGB. The image is
    of mode ``L``, ``RGB``, ``CMYK`` or ``LAB``.

    Returns:
        An image of mode ``RGB``, or ``L`` where a grey one needs no conversion.
    """
    transform = _conversion(profile, image.mode)[0] if profile else None
    if transform is None and image.mode == "LAB":
        transform = _transform(ImageCms.createProfile("LAB"), "LAB")
    if transform is not None:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None  # None is for work in place
        return converted
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


@functools.lru_cache(maxsize=64)
def _conversion(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform | None, bool]:
    """From a profile's colours to sRGB, None where they are the same; and whether it is whole and made for a mode."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != _SPACES[mode]:
            return None, False
        transform = _transform(opened, mode)
        return None if _changes_nothing(transform, mode) else transform, True
    # LittleCMS and its binding meet damaged profiles with errors of many kinds.
    except Exception:
        return None, False


def _transform(profile: ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether no colour moves by more than a level: most profiles are those of sRGB, and pixels then stay alike."""
    if mode not in ("L", "RGB"):
        return False
    levels = np.arange(256, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[levels[::15]] * 3), axis=-1).reshape(1, -1, 3)
    colours = np.concatenate([grid, np.repeat(levels, 3).reshape(1, -1, 3)], axis=1)
    before = Image.fromarray(levels[None] if mode == "L" else colours)
    after = ImageCms.applyTransform(before, transform)
    assert after is not None
    return int(np.abs(np.asarray(after, dtype=np.int16) - np.asarray(before.convert("RGB"))).max()) <= 1
