"""Image pairs for evaluation: whole images, with the low-resolution side made in memory where it is not on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantnas_ext.errors import InputError
from quantnas_ext.sr.degradation import check_scale, crop_to_multiple, downscale
from quantnas_ext.sr.folders import check_dataset_folder, find_hr_folder, hr_folder, lr_folder
from quantnas_ext.sr.images import image_size, list_images, read_image

__all__ = ["EvaluationPairs", "ImagePair"]

_WINDOW = 11
"""Side of SSIM's Gaussian window: what is left of an image without its borders has to hold one."""


@dataclass(frozen=True)
class ImagePair:
    """One image to evaluate on.

    Attributes:
        name: File name of the high-resolution image.
        lr: Low-resolution image, `uint8 [h, w, 3]`.
        hr: High-resolution image, `uint8 [scale h, scale w, 3]`.
    """

    name: str
    lr: np.ndarray
    hr: np.ndarray


class EvaluationPairs:
    """The image pairs of one folder, in the order of their names.

    Args:
        folder: A dataset folder (`HR`, perhaps `LRx{scale}`) or a plain folder of high-resolution images. Where there
            is no `LRx{scale}`, low-resolution images are made in memory by the protocol of `degradation`.
        scale: Factor between HR and LR.
        smallest: Sides, in high-resolution pixels, that the images need for more than PSNR and SSIM: other figures, or
            the network that enlarges them.

    Raises:
        InputError: The folder is missing or empty, an image is unreadable or too small to score, or LR and HR do not
            match.
    """

    def __init__(self, folder: str | Path, scale: int, *, smallest: int = 0) -> None:
        self.scale = check_scale(scale)
        self._hr = find_hr_folder(folder)
        self._lr = lr_folder(folder, scale) if self._hr == hr_folder(folder) else None
        if self._lr is not None and self._lr.exists():
            check_dataset_folder(folder, scale)
        else:
            self._lr = None
        self.images = list_images(self._hr)
        # Cropping to a multiple of the scale takes up to scale - 1 pixels, leaving out borders 2 scale.
        needed = max(_WINDOW + 2 * scale, smallest, 4 * scale) + scale - 1
        for path in self.images:
            width, height = image_size(path)
            if min(width, height) < needed:
                raise InputError(
                    f"image '{path}' of {width}x{height} pixels is too small to be scored at scale {scale}; "
                    f"give images of at least {needed} pixels a side"
                )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ImagePair:
        path = self.images[index]
        hr = crop_to_multiple(read_image(path), self.scale)
        lr = downscale(hr, self.scale, path) if self._lr is None else read_image(self._lr / path.name)
        return ImagePair(path.name, lr, hr)
