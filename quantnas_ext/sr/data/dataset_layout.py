"""Data sets for training on disk: where a folder has its high- and low-resolution images, and which belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantnas_ext.errors import InputError
from quantnas_ext.files.paths import seen_from
from quantnas_ext.notices import notice
from quantnas_ext.sr.data.decoding import begin_decoding
from quantnas_ext.sr.data.degradation import check_scale
from quantnas_ext.sr.data.images import image_headers, list_images

if TYPE_CHECKING:
    from quantnas_ext.runs.config import DataConfig


@dataclass(frozen=True)
class ImagePaths:
    """One image pair on disk: the high-resolution file and the low-resolution one."""

    hr: Path
    lr: Path


@dataclass(frozen=True)
class DatasetLayout:
    """Where a dataset folder has its images; the default is what ``recipes/prepare_data.py`` makes.

    DIV2K as it is unpacked has ``hr="DIV2K_train_HR"``, ``lr="DIV2K_train_LR_bicubic/X{scale}"``,
    ``lr_suffix="x{scale}"``.

    Attributes:
        hr: folder of the high-resolution images, relative to the dataset folder.
        lr: folder of the low-resolution images; ``{scale}`` stands for the scale.
        lr_suffix: what a low-resolution image has in its name behind that of its high-resolution image, before the
            ending; ``{scale}`` stands for the scale.
        nested: whether images in subfolders of both belong to the data set.
    """

    hr: str = "HR"
    lr: str = "LRx{scale}"
    lr_suffix: str = ""
    nested: bool = False

    @classmethod
    def of(cls, data: DataConfig) -> DatasetLayout:
        """The layout that a configuration describes."""
        return cls(data.hr_folder, data.lr_folder, data.lr_suffix, data.nested)

    def hr_folder(self, folder: str | Path) -> Path:
        """Where a dataset folder keeps its high-resolution images."""
        return Path(folder) / self.hr

    def lr_folder(self, folder: str | Path, scale: int) -> Path:
        """Where a dataset folder keeps its low-resolution images of one scale."""
        return Path(folder) / self.lr.replace("{scale}", str(scale))

    def found_in(self, folder: str | Path) -> DatasetLayout:
        """This layout, or that of folders made here for one of those that lies among the folders of a configuration."""
        made_here = DatasetLayout(nested=self.nested)
        if not self.hr_folder(folder).is_dir() and made_here.hr_folder(folder).is_dir():
            return made_here
        return self


def dataset_pairs(
    folder: str | Path,
    scale: int,
    patch: int | None = None,
    *,
    layout: DatasetLayout | None = None,
    skip_small: bool = False,
) -> list[ImagePaths]:
    """The image pairs of a dataset folder, sorted by name, checked: names and sizes match, and all can be decoded.

    Args:
        folder: dataset folder.
        scale: factor between the high- and the low-resolution images.
        patch: side of the training crops in low-resolution pixels, which has to fit into every image.
        layout: where the folder has its images; as ``recipes/prepare_data.py`` makes them, if None.
        skip_small: leave out images that are smaller than the patch, with a notice that counts them.

    Raises:
        InputError: a folder is missing or empty, names differ, an image is unreadable, sizes do not match, the patch
            does not fit, or none is left. Where there are many images, unreadable ones are found beside what follows,
            and ``decoding.finish_decoding`` raises.
    """
    check_scale(scale)
    if not Path(folder).is_dir():
        raise InputError(
            f"dataset folder '{folder}' does not exist{seen_from(folder)}; make it with recipes/prepare_data.py"
        )
    layout = (layout or DatasetLayout()).found_in(folder)
    high, low = layout.hr_folder(folder), layout.lr_folder(folder, scale)
    for needed, key in ((high, "data.hr_folder"), (low, "data.lr_folder")):
        if not needed.is_dir():
            name = needed.relative_to(folder) if needed.is_relative_to(folder) else needed
            raise InputError(
                f"dataset folder '{folder}' has no folder {name}; make it with recipes/prepare_data.py "
                f"--scale {scale}, or name another one in {key}"
            )
    pairs = _matching(high, low, layout, scale)
    headers = {
        part: image_headers(paths, part)
        for part, paths in ((high, [pair.hr for pair in pairs]), (low, [pair.lr for pair in pairs]))
    }
    kept, pixels = [], 0
    for pair, header, small in zip(pairs, headers[high], headers[low], strict=True):
        if (header.width, header.height) != (small.width * scale, small.height * scale):
            raise InputError(
                f"'{pair.hr}' is {header.width}x{header.height} and '{pair.lr}' {small.width}x{small.height} pixels; "
                f"the first must be exactly {scale} times the second"
            )
        if patch is not None and min(small.width, small.height) < patch:
            if skip_small:
                continue
            raise InputError(
                f"'{pair.lr}' of {small.width}x{small.height} pixels is smaller than the patch of {patch}; take a "
                "smaller patch, remove the image, or leave out all such images with data.skip_small=true"
            )
        kept.append(pair)
        pixels += header.width * header.height + small.width * small.height
    if not kept:
        raise InputError(f"all images of '{folder}' are smaller than the patch of {patch}; take a smaller patch")
    if len(kept) < len(pairs):
        left_out = f"{len(pairs) - len(kept)} of {len(pairs)} images"
        notice(f"left out in '{folder}', smaller than the patch of {patch} pixels: {left_out} (data.skip_small)")
    begin_decoding([path for pair in kept for path in (pair.hr, pair.lr)], pixels, Path(folder).name)
    return kept


def _matching(high: Path, low: Path, layout: DatasetLayout, scale: int) -> list[ImagePaths]:
    """The images of both folders by name; the endings of one pair may differ."""
    suffix = layout.lr_suffix.replace("{scale}", str(scale))
    high_images = _by_name(list_images(high, nested=layout.nested), high, "")
    low_images = _by_name(list_images(low, nested=layout.nested), low, suffix)
    if high_images.keys() != low_images.keys():
        alone = min(high_images.keys() ^ low_images.keys())
        name = (high_images.get(alone) or low_images[alone]).name
        usual = f"x{scale}"
        hint = ""
        if not suffix and all(stem.endswith(usual) for stem in low_images):
            hint = f"; names that end in '{usual}' are matched with data.lr_suffix={usual}"
        raise InputError(
            f"'{high}' and '{low}' do not match: {len(high_images)} and {len(low_images)} images, "
            f"'{name}' is in one only; both need the same names{hint}"
        )
    return [ImagePaths(high_images[name], low_images[name]) for name in sorted(high_images)]


def _by_name(paths: Sequence[Path], folder: Path, suffix: str) -> dict[str, Path]:
    """Images by their path below the folder, without its ending and the suffix before it."""
    named: dict[str, Path] = {}
    for path in paths:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if not stem.endswith(suffix):
            raise InputError(f"'{path}' has no '{suffix}' at the end of its name, as data.lr_suffix says; rename it")
        stem = stem.removesuffix(suffix)
        if stem in named:
            raise InputError(f"'{named[stem].name}' and '{path.name}' in '{folder}' share a name; rename one")
        named[stem] = path
    return named
