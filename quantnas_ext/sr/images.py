"""Images on disk: listing folders, reading to 8-bit RGB, writing PNG, and the way to tensors and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from quantnas_ext.atomic import atomic_file
from quantnas_ext.errors import InputError
from quantnas_ext.paths import seen_from

__all__ = [
    "IMAGE_SUFFIXES",
    "Picture",
    "image_size",
    "image_to_tensor",
    "list_images",
    "read_image",
    "read_picture",
    "tensor_to_image",
    "write_png",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

_ORIENTATION = 0x0112
"""Number of the EXIF tag in which a camera notes how it was held; from 5 on, width and height change places."""


@dataclass(frozen=True)
class Picture:
    """One image as it is on disk.

    Attributes:
        rgb: `uint8 [h, w, 3]`; the three channels are equal where the file is greyscale.
        alpha: Opacity, `uint8 [h, w]`, or None where the file has none.
        grey: Whether the file is greyscale.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    grey: bool


def list_images(folder: str | Path) -> list[Path]:
    """The images of a folder (not of its subfolders), sorted by name.

    Raises:
        InputError: The folder is missing, is a file, or holds no image.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"image folder '{folder}' does not exist{seen_from(folder)}; name a folder that holds images")
    if not folder.is_dir():
        raise InputError(f"image folder '{folder}' is a file; name the folder that holds the images")
    images = sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )
    if not images:
        raise InputError(f"image folder '{folder}' holds no images; put {', '.join(IMAGE_SUFFIXES)} files there")
    return images


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an upright image, from its header alone.

    Raises:
        InputError: The file is missing or is not an image.
    """
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.height, image.width) if turned else image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image '{path}' cannot be read ({error}); replace or remove it") from error


def read_picture(path: str | Path) -> Picture:
    """Read an image with its opacity, upright (a camera's orientation tag is applied).

    Palettes, CMYK and 1-bit images are converted; 16-bit greyscale is rounded to 8 bits.

    Raises:
        InputError: The file is missing, is not a readable image, or holds floating-point or 32-bit pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"image '{path}' does not exist{seen_from(path)}; name an image file")
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
    # Pillow's decoders meet damaged files with errors of many kinds.
    except (OSError, ValueError, SyntaxError, IndexError, Image.DecompressionBombError) as error:
        raise InputError(f"image '{path}' cannot be read ({error}); replace or remove it") from error
    if image.mode in ("I", "F"):
        raise InputError(f"image '{path}' has 32-bit pixels; save it with 8 or 16 bits per channel")
    if image.mode.startswith("I;16"):
        wide = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(np.rint(wide / 257.0).astype(np.uint8))
    alpha = np.array(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
    return Picture(np.array(image.convert("RGB")), alpha, grey=image.mode in ("L", "LA", "1"))


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as `uint8 [h, w, 3]` RGB; greyscale is repeated three times, opacity is dropped.

    Raises:
        InputError: As `read_picture`.
    """
    return read_picture(path).rgb


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write `uint8 [h, w]`, `[h, w, 2]` (grey, alpha), `[h, w, 3]` or `[h, w, 4]` (RGB, alpha) as PNG.

    The file appears complete or not at all.
    """
    with atomic_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=3)  # as small as 6, written twice as fast


def image_to_tensor(image: np.ndarray) -> Tensor:
    """`uint8 [h, w, 3]` to `float32 [1, 3, h, w]` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).unsqueeze(0).float().div(255.0)


def tensor_to_image(tensor: Tensor) -> np.ndarray:
    """`[1, 3, h, w]` in [0, 1] (values outside are clipped) to `uint8 [h, w, 3]`, rounded to the nearest integer."""
    scaled = tensor.detach().squeeze(0).float().clamp(0.0, 1.0).mul(255.0).round()
    return scaled.to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
