"""Image pairs for evaluation: whole images, with the low-resolution side made in memory where it is not on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.dataset_layout import DatasetLayout, dataset_pairs
from quantnas_ext.sr.data.decoding import begin_decoding, finish_decoding
from quantnas_ext.sr.data.degradation import check_scale, crop_to_multiple, downscale
from quantnas_ext.sr.data.images import image_headers, list_images, read_image

_WINDOW = 11
"""Side of SSIM's Gaussian window: what is left of an image without its borders has to hold one."""


@dataclass(frozen=True)
class ImagePair:
    """One image to evaluate on.

    Attributes:
        name: file name of the high-resolution image, with the subfolders below that of the data set.
        lr: low-resolution image, ``uint8 [h, w, 3]``.
        hr: high-resolution image, ``uint8 [scale h, scale w, 3]``.
    """

    name: str
    lr: np.ndarray
    hr: np.ndarray


def scored_folder(folder: str | Path) -> Path:
    """Where the high-resolution images of a folder lie: in its ``HR``, or where there is none in the folder itself."""
    inner = DatasetLayout().hr_folder(folder)
    return inner if inner.is_dir() else Path(folder)


class EvaluationPairs:
    """The image pairs of one folder, in the order of their names.

    Args:
        folder: a dataset folder (``HR``, perhaps ``LRx{scale}``) or a plain folder of high-resolution images. Where
            there is no ``LRx{scale}``, low-resolution images are made in memory by the protocol of ``degradation``.
        scale: factor between HR and LR.
        smallest: sides, in high-resolution pixels, that the images need for more than PSNR and SSIM: other figures, or
            the network that enlarges them.
        nested: whether images in subfolders belong to the folder.

    Raises:
        InputError: the folder is missing or empty, an image is unreadable or too small to score, or LR and HR do not
            match. Where there are many images, unreadable ones are found beside what follows, and
            ``decoding.finish_decoding`` raises.
    """

    def __init__(self, folder: str | Path, scale: int, *, smallest: int = 0, nested: bool = False) -> None:
        self.scale = check_scale(scale)
        layout = DatasetLayout(nested=nested)
        self._hr = scored_folder(folder)
        self._lr: list[Path] | None = None
        if self._hr == layout.hr_folder(folder) and layout.lr_folder(folder, scale).exists():
            pairs = dataset_pairs(folder, scale, layout=layout)
            self.images, self._lr = [pair.hr for pair in pairs], [pair.lr for pair in pairs]
        else:
            self.images = list_images(self._hr, nested=nested)
        headers = image_headers(self.images, self._hr)
        # Cropping to a multiple of the scale takes up to scale - 1 pixels, leaving out borders 2 scale.
        needed = max(_WINDOW + 2 * scale, smallest, 4 * scale) + scale - 1
        for path, header in zip(self.images, headers, strict=True):
            if min(header.width, header.height) < needed:
                raise InputError(
                    f"image '{path}' of {header.width}x{header.height} pixels is too small to be scored at scale "
                    f"{scale}; give images of at least {needed} pixels a side"
                )
        pixels = sum(header.width * header.height for header in headers)
        begin_decoding(self.images, pixels, Path(folder).name)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ImagePair:
        finish_decoding()
        path = self.images[index]
        hr = crop_to_multiple(read_image(path), self.scale)
        lr = downscale(hr, self.scale, path) if self._lr is None else read_image(self._lr[index])
        return ImagePair(path.relative_to(self._hr).as_posix(), lr, hr)
