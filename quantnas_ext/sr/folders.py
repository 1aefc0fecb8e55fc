"""Dataset folders, `HR/*.png` beside `LRx{scale}/*.png` of the same names: made from images, and checked."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from quantnas_ext.atomic import atomic_folder
from quantnas_ext.errors import InputError
from quantnas_ext.paths import seen_from
from quantnas_ext.sr.degradation import check_scale, crop_to_multiple, downscale
from quantnas_ext.sr.images import image_size, list_images, read_image, write_png

__all__ = ["check_dataset_folder", "find_hr_folder", "hr_folder", "lr_folder", "prepare_dataset_folder"]


def hr_folder(folder: str | Path) -> Path:
    """Where a dataset folder keeps its high-resolution images."""
    return Path(folder) / "HR"


def lr_folder(folder: str | Path, scale: int) -> Path:
    """Where a dataset folder keeps its low-resolution images of one scale."""
    return Path(folder) / f"LRx{scale}"


def find_hr_folder(folder: str | Path) -> Path:
    """The folder of high-resolution images: `folder/HR` of a dataset folder, else the folder itself.

    Raises:
        InputError: It is missing or holds no image.
    """
    inner = hr_folder(folder)
    found = inner if inner.is_dir() else Path(folder)
    list_images(found)
    return found


def prepare_dataset_folder(
    source: str | Path, target: str | Path, scale: int, *, crop: int | None = None, step: int | None = None
) -> Path:
    """Make a dataset folder from a folder of high-resolution images.

    Each image is cropped to a multiple of the scale and reduced (`degradation.downscale`). With `crop`, both are then
    cut into overlapping sub-images, which makes reading them during training fast; they are cut after the reduction,
    so that a sub-image has no borders of its own. Images smaller than `crop` stay whole in that direction.

    Args:
        source: Folder of images of any size and format.
        target: Folder to make; it appears when everything is done.
        scale: 2, 3 or 4.
        crop: Side of the sub-images in high-resolution pixels, a multiple of the scale; None keeps whole images.
        step: Distance between sub-images, a multiple of the scale; `crop` if None.

    Returns:
        The target folder.

    Raises:
        InputError: The source is missing, empty, or has an unreadable or too small image or two of one name; the
            target exists; the scale, crop or step is not possible. Nothing is left behind.
    """
    source, target = Path(source), Path(target)
    check_scale(scale)
    step = crop if step is None else step
    if crop is None and step is not None:
        raise InputError(f"a step of {step} pixels has no meaning without a crop; give both or neither")
    for name, pixels in (("crop", crop), ("step", step)):
        if pixels is not None and (pixels < 4 * scale or pixels % scale):
            raise InputError(f"{name} {pixels} is not possible; give a multiple of scale {scale}, at least {4 * scale}")
    if target.exists():
        raise InputError(f"dataset folder '{target}' already exists; name another folder or delete this one first")
    images = list_images(source)
    by_stem: dict[str, Path] = {}
    for path in images:
        if path.stem in by_stem:
            raise InputError(f"'{by_stem[path.stem].name}' and '{path.name}' in '{source}' share a name; rename one")
        by_stem[path.stem] = path

    with atomic_folder(target, same=_same_images) as temporary:
        high, low = hr_folder(temporary), lr_folder(temporary, scale)
        high.mkdir()
        low.mkdir()
        for stem, path in tqdm(by_stem.items(), desc=f"preparing {target.name}", unit="image"):
            image = crop_to_multiple(read_image(path), scale)
            reduced = downscale(image, scale, path)
            for suffix, (top, left, height, width) in _sub_images(image, scale, crop, step):
                write_png(high / f"{stem}{suffix}.png", image[top : top + height, left : left + width])
                top, left, height, width = (value // scale for value in (top, left, height, width))
                write_png(low / f"{stem}{suffix}.png", reduced[top : top + height, left : left + width])
    return target


def check_dataset_folder(folder: str | Path, scale: int, patch: int | None = None) -> int:
    """Check that a dataset folder can be trained on, from file names and image headers alone.

    Args:
        folder: Dataset folder.
        scale: Factor between the images of `HR` and of `LRx{scale}`.
        patch: Side of the training crops in low-resolution pixels, which has to fit into every image.

    Returns:
        The number of image pairs.

    Raises:
        InputError: A folder is missing or empty or holds other files, names differ, an image is unreadable, sizes do
            not match, or the patch does not fit.
    """
    check_scale(scale)
    high, low = hr_folder(folder), lr_folder(folder, scale)
    if not Path(folder).is_dir():
        raise InputError(
            f"dataset folder '{folder}' does not exist{seen_from(folder)}; make it with recipes/prepare_data.py"
        )
    for needed in (high, low):
        if not needed.is_dir():
            raise InputError(
                f"dataset folder '{folder}' has no folder {needed.name}; "
                f"make it with recipes/prepare_data.py --scale {scale}"
            )
    high_images, low_images = list_images(high), list_images(low)
    for part, images in ((high, high_images), (low, low_images)):
        strange = {entry.name for entry in part.iterdir() if not entry.name.startswith(".") and entry.is_file()}
        strange -= {path.name for path in images}
        if strange:
            raise InputError(f"'{part / min(strange)}' is not an image; remove it from the dataset folder")
    high_names, low_names = ({path.name for path in images} for images in (high_images, low_images))
    if high_names != low_names:
        raise InputError(
            f"'{high}' and '{low}' do not match: {len(high_names)} and {len(low_names)} images, "
            f"'{min(high_names ^ low_names)}' is in one only; both need the same names"
        )
    for path in high_images:
        width, height = image_size(path)
        small_width, small_height = image_size(low / path.name)
        if (width, height) != (small_width * scale, small_height * scale):
            raise InputError(
                f"'{path}' is {width}x{height} and '{low / path.name}' {small_width}x{small_height} pixels; "
                f"the first must be exactly {scale} times the second"
            )
        if patch is not None and min(small_width, small_height) < patch:
            raise InputError(
                f"'{low / path.name}' of {small_width}x{small_height} pixels is smaller than the patch of {patch}; "
                "take a smaller patch or remove the image"
            )
    return len(high_images)


def _same_images(folder: Path, other: Path) -> bool:
    """Whether two dataset folders hold the same images, byte for byte."""
    ours, theirs = ({path.relative_to(part) for path in part.rglob("*.png")} for part in (folder, other))
    return ours == theirs and all(filecmp.cmp(folder / name, other / name, shallow=False) for name in ours)


def _sub_images(
    image: np.ndarray, scale: int, crop: int | None, step: int | None
) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Name suffixes and boxes (top, left, height, width) of the sub-images; the last ones end at the image's border."""
    height, width = image.shape[:2]
    if crop is None or step is None:
        yield "", (0, 0, height, width)
        return
    tall, wide = min(crop, height), min(crop, width)
    tops = sorted({*range(0, height - tall, step), height - tall})
    lefts = sorted({*range(0, width - wide, step), width - wide})
    for number, (top, left) in enumerate(((top, left) for top in tops for left in lefts), start=1):
        yield f"_s{number:03d}", (top, left, tall, wide)
