"""Real photographs that need no download: those that scikit-image and scikit-learn ship."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from quantnas_ext.runs.config import DataConfig
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.images import write_png

SCIKIT_IMAGE_TRAINING = ("motorcycle_left", "rocket", "camera", "brick", "grass", "gravel")
SCIKIT_LEARN_TRAINING = ("china.jpg", "flower.jpg")
HELD_OUT = ("astronaut", "chelsea", "coffee")
"""Held-out photographs: public domain (astronaut, NASA) or CC0 (chelsea, S. van der Walt; coffee, R. Michetti)."""

SUB_IMAGE = 96  # HR pixels; divisible by 2, 3 and 4


def with_photographs(data: DataConfig, scale: int) -> DataConfig:
    """Where the configuration asks for these photographs, prepare them and enter them as its images.

    ``data.photographs`` then holds the dataset folders ``trainxS`` (sub-images) and ``testxS`` (whole held-out images)
    of scale S (2, 3 or 4), and ``train`` and ``test`` name them where they were empty. Parts that are there already are
    left as they are.
    """
    if data.photographs is None:
        return data
    folder = Path(data.photographs)
    training, held_out = folder / f"trainx{scale}", folder / f"testx{scale}"
    _prepare(training, _training, scale, SUB_IMAGE)
    _prepare(held_out, lambda: {name: _packaged(name) for name in HELD_OUT}, scale, None)
    return dataclasses.replace(
        data, train=data.train or [str(training)], test=data.test or {"photographs": str(held_out)}
    )


def _prepare(target: Path, images: Callable[[], dict[str, np.ndarray]], scale: int, crop: int | None) -> None:
    if target.exists():
        return
    with tempfile.TemporaryDirectory() as temporary:
        for stem, image in images().items():
            write_png(Path(temporary) / f"{stem}.png", image)
        prepare_dataset_folder(temporary, target, scale, crop=crop, step=None if crop is None else crop * 5 // 8)


def _training() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_sample_image

    images = {name: _packaged(name) for name in SCIKIT_IMAGE_TRAINING}
    images |= {Path(name).stem: load_sample_image(name) for name in SCIKIT_LEARN_TRAINING}
    return images


def _packaged(name: str) -> np.ndarray:
    """An image of ``skimage.data`` as uint8 RGB ``[H, W, 3]``."""
    from skimage import color, data

    image = data.stereo_motorcycle()[0] if name == "motorcycle_left" else getattr(data, name)()
    return color.gray2rgb(image) if image.ndim == 2 else image
