"""Images on disk: listing folders, reading to 8-bit sRGB, writing PNG, and the way to tensors and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.files.paths import seen_from
from quantnas_ext.notices import notice
from quantnas_ext.sr.data.colour_profiles import to_srgb
from quantnas_ext.sr.data.image_files import (
    ImageHeader,
    colour_mode,
    image_suffixes,
    levels_of,
    open_image,
    read_header,
    upright,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Picture:
    """One image as it is on disk.

    Attributes:
        rgb: ``uint8 [h, w, 3]``; the three channels are equal where the file is greyscale.
        alpha: opacity, ``uint8 [h, w]``, or None where the file has none.
        grey: whether the file is greyscale.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    grey: bool


def list_images(folder: str | Path, *, nested: bool = False) -> list[Path]:
    """The images of a folder, sorted by name: files with the ending of any format that Pillow reads here.

    What is left out is named in a notice; only names that begin with a dot are passed over in silence.

    Args:
        folder: the folder.
        nested: whether images in its subfolders belong to it, at any depth.

    Raises:
        InputError: the folder is missing, is a file, or holds no image.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"image folder '{folder}' does not exist{seen_from(folder)}; name a folder that holds images")
    if not folder.is_dir():
        raise InputError(f"image folder '{folder}' is a file; name the folder that holds the images")
    images: list[Path] = []
    others: list[str] = []
    subfolders: list[str] = []
    seen = set()
    for root, names, files in os.walk(folder, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith("."))
        seen.add(os.path.realpath(root))
        if not nested:
            subfolders, names[:] = names[:], []
        # A link to a folder above would lead round for ever.
        names[:] = [name for name in names if os.path.realpath(Path(root, name)) not in seen]
        for path in (Path(root, name) for name in files if not name.startswith(".")):
            if path.suffix.lower() in image_suffixes() and path.is_file():
                images.append(path)
            else:
                others.append(path.relative_to(folder).as_posix())
    if not images:
        endings = "png, jpg, tif, webp or other images that Pillow reads"
        below = "; images in subfolders need the option 'nested'" if subfolders else ""
        raise InputError(f"image folder '{folder}' holds no images; put {endings} there{below}")
    for kind, names in (("not images that can be read", sorted(others)), ("subfolders", subfolders)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            notice(f"left out in '{folder}', {kind}: {', '.join(names[:5])}{more}")
    return sorted(images)


def image_headers(paths: Sequence[Path], source: object) -> list[ImageHeader]:
    """The headers of images that are going to be read; one line for their ``source`` says what reading will change.

    Raises:
        InputError: one is missing or is not an image.
    """
    headers = [read_header(path) for path in paths]
    for marked, what in (
        ([header.deep for header in headers], "more than 8 bits per channel, and are read with 8"),
        ([not header.profile_fits for header in headers], "an unusable colour profile, and are read as sRGB"),
    ):
        if any(marked):
            first = paths[marked.index(True)].name
            notice(f"{sum(marked)} of {len(paths)} images in '{source}' have {what} ('{first}')")
    return headers


def read_picture(path: str | Path) -> Picture:
    """Read an image with its opacity, upright (a camera's orientation tag is applied), in sRGB.

    Palettes, CMYK and 1-bit images are converted, colours by the profile in the file; 16-bit greyscale is rounded to 8
    bits, of 16-bit colours Pillow keeps the upper 8. Of several frames or pages the first is taken.

    Raises:
        InputError: the file is missing, is not a readable image, or holds floating-point or 32-bit pixels.
    """
    with open_image(path) as file:
        profile, white = file.info.get("icc_profile"), levels_of(file)
        image = upright(file)
        if white is not None:
            wide = np.asarray(image, dtype=np.float64)
            image = Image.fromarray(np.rint(wide * (255.0 / white)).clip(0, 255).astype(np.uint8))
        if image.mode.startswith(("I", "F")):
            raise InputError(f"image '{path}' has 32-bit pixels; save it with 8 or 16 bits per channel")
        mode = colour_mode(image)
        alpha = None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            alpha = np.array(image.getchannel("A"))
        rgb = _in_mode(to_srgb(_in_mode(image, mode), profile), "RGB")
        return Picture(np.array(rgb), alpha, grey=mode == "L")


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as ``uint8 [h, w, 3]`` sRGB; greyscale is repeated three times, opacity is dropped.

    Raises:
        InputError: as ``read_picture``.
    """
    return read_picture(path).rgb


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An image converted to a mode; itself, where it has it, and not the copy that Pillow makes."""
    return image if image.mode == mode else image.convert(mode)


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write ``uint8 [h, w]``, ``[h, w, 2]`` (grey, alpha), ``[h, w, 3]`` or ``[h, w, 4]`` (RGB, alpha) as PNG.

    The file appears complete or not at all.
    """
    with atomic_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=3)  # as small as 6, written twice as fast


def image_to_tensor(image: np.ndarray) -> Tensor:
    """``uint8 [h, w, 3]`` to ``float32 [1, 3, h, w]`` in [0, 1]."""
    import torch  # here, as checks of image folders need none of it

    # By NumPy, which is faster on small crops.
    scaled = image.astype(np.float32)
    scaled /= 255.0
    return torch.from_numpy(scaled.transpose(2, 0, 1)[None])


def tensor_to_image(tensor: Tensor) -> np.ndarray:
    """``[1, 3, h, w]`` in [0, 1] (clipped) to ``uint8 [h, w, 3]``, rounded to the nearest integer."""
    import torch

    scaled = tensor.detach().squeeze(0).float().clamp(0.0, 1.0).mul(255.0).round()
    return scaled.to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
