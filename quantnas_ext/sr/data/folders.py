"""Dataset folders, ``HR/*.png`` beside ``LRx{scale}/*.png`` of the same names: made from images, and checked."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import atomic_folder
from quantnas_ext.sr.data.dataset_layout import DatasetLayout
from quantnas_ext.sr.data.degradation import check_scale, crop_to_multiple, downscale
from quantnas_ext.sr.data.images import image_headers, list_images, read_image, write_png
from quantnas_ext.sr.data.origins import Box, Origin, photograph_digest, write_origins


def prepare_dataset_folder(
    source: str | Path,
    target: str | Path,
    scale: int,
    *,
    crop: int | None = None,
    step: int | None = None,
    nested: bool = False,
) -> Path:
    """Make a dataset folder from a folder of high-resolution images.

    Each image is cropped to a multiple of the scale and reduced (``degradation.downscale``). With ``crop``, both are
    then cut into overlapping sub-images, which makes reading them during training fast; they are cut after the
    reduction, so that a sub-image has no borders of its own. Images smaller than ``crop`` stay whole in that direction.
    Beside them ``origins.json`` says which photograph, and which part of it, every image is.

    Args:
        source: folder of images of any size and format.
        target: folder to make; it appears when everything is done.
        scale: 2, 3 or 4.
        crop: side of the sub-images in high-resolution pixels, a multiple of the scale; None keeps whole images.
        step: distance between sub-images, a multiple of the scale; ``crop`` if None.
        nested: take the images in subfolders of the source as well; ``a/b.jpg`` becomes ``a_b.png``.

    Returns:
        The target folder.

    Raises:
        InputError: the source is missing, empty, or has an unreadable or too small image or two of one name; the
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
    images = list_images(source, nested=nested)
    image_headers(images, source)
    by_stem: dict[str, Path] = {}
    for path in images:
        inside = path.relative_to(source)
        stem = "_".join(inside.with_suffix("").parts)
        if stem in by_stem:
            other = by_stem[stem].relative_to(source)
            raise InputError(f"'{other}' and '{inside}' in '{source}' share a name; rename one")
        by_stem[stem] = path

    origins: dict[str, Origin] = {}
    with atomic_folder(target, same=_same_images) as temporary:
        high, low = DatasetLayout().hr_folder(temporary), DatasetLayout().lr_folder(temporary, scale)
        high.mkdir()
        low.mkdir()
        for stem, path in tqdm(by_stem.items(), desc=f"preparing {target.name}", unit="image"):
            photograph = read_image(path)
            name, digest = path.relative_to(source).as_posix(), photograph_digest(photograph)
            image = crop_to_multiple(photograph, scale)
            reduced = downscale(image, scale, path)
            for suffix, box in _sub_images(image, scale, crop, step):
                write_png(high / f"{stem}{suffix}.png", box.of(image))
                write_png(low / f"{stem}{suffix}.png", Box(*(value // scale for value in box)).of(reduced))
                origins[f"{stem}{suffix}"] = Origin(digest, name, box)
        write_origins(temporary, origins)
    return target


def _same_images(folder: Path, other: Path) -> bool:
    """Whether two dataset folders hold the same images, byte for byte."""
    ours, theirs = ({path.relative_to(part) for path in part.rglob("*.png")} for part in (folder, other))
    return ours == theirs and all(filecmp.cmp(folder / name, other / name, shallow=False) for name in ours)


def _sub_images(image: np.ndarray, scale: int, crop: int | None, step: int | None) -> Iterator[tuple[str, Box]]:
    """Name suffixes and boxes of the sub-images; the last ones end at the image's border."""
    height, width = image.shape[:2]
    if crop is None or step is None:
        yield "", Box(0, 0, height, width)
        return
    tall, wide = min(crop, height), min(crop, width)
    tops = sorted({*range(0, height - tall, step), height - tall})
    lefts = sorted({*range(0, width - wide, step), width - wide})
    for number, (top, left) in enumerate(((top, left) for top in tops for left in lefts), start=1):
        yield f"_s{number:03d}", Box(top, left, tall, wide)
