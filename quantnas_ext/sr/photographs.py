"""Real photographs that need no download: those that scikit-image and scikit-learn ship."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from quantnas_ext.sr.folders import prepare_dataset_folder
from quantnas_ext.sr.images import write_png

SCIKIT_IMAGE_TRAINING = ("motorcycle_left", "rocket", "camera", "brick", "grass", "gravel")
SCIKIT_LEARN_TRAINING = ("china.jpg", "flower.jpg")
HELD_OUT = ("astronaut", "chelsea", "coffee")
"""Held-out photographs, in the public domain (astronaut: NASA) or CC0 (chelsea: S. van der Walt; coffee: R. Michetti)."""

SUB_IMAGE = 96  # HR pixels; divisible by 2, 3 and 4


def prepare_photographs(folder: str | Path, scale: int) -> None:
    """Make the dataset folders ``train`` (sub-images) and ``test`` (whole held-out images) where they are missing.

    Args:
        folder: holds both; parts that exist already are left as they are.
        scale: 2, 3 or 4; ``LRx{scale}`` is made for this one.
    """
    folder = Path(folder)
    for name, crop in (("train", SUB_IMAGE), ("test", None)):
        target = folder / f"{name}x{scale}"
        if target.exists():
            continue
        with tempfile.TemporaryDirectory() as temporary:
            for stem, image in (_training() if name == "train" else _held_out()).items():
                write_png(Path(temporary) / f"{stem}.png", image)
            step = None if crop is None else crop * 2 // 3 // 12 * 12
            prepare_dataset_folder(temporary, target, scale, crop=crop, step=step)


def _training() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_sample_image

    images = {name: _packaged(name) for name in SCIKIT_IMAGE_TRAINING}
    images |= {Path(name).stem: load_sample_image(name) for name in SCIKIT_LEARN_TRAINING}
    return images


def _held_out() -> dict[str, np.ndarray]:
    return {name: _packaged(name) for name in HELD_OUT}


def _packaged(name: str) -> np.ndarray:
    """An image of ``skimage.data`` as uint8 RGB ``[H, W, 3]``."""
    from skimage import color, data

    image = data.stereo_motorcycle()[0] if name == "motorcycle_left" else getattr(data, name)()
    return color.gray2rgb(image) if image.ndim == 2 else image
