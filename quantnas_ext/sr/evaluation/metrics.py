"""PSNR and SSIM on the Y channel, and the scores of a network or of bicubic interpolation on a folder of images.

The protocol of the literature: 8-bit images, BT.601 studio-range Y, borders of ``scale`` pixels left out, the mean over
images; figures come from BasicSR's ``calculate_psnr`` and ``calculate_ssim``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from tqdm import tqdm

from quantnas_ext import compat
from quantnas_ext.sr.data.degradation import upscale_bicubic
from quantnas_ext.sr.data.evaluation_pairs import EvaluationPairs
from quantnas_ext.sr.evaluation.perceptual import Lpips
from quantnas_ext.sr.evaluation.upscaling import upscale

compat.prepare_basicsr()
from basicsr.metrics.psnr_ssim import calculate_psnr, calculate_ssim  # noqa: E402


def psnr_y(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """Peak signal-to-noise ratio of Y in dB; infinite for equal images.

    Args:
        image: ``uint8 [h, w, 3]`` RGB.
        reference: the same shape.
        border: pixels left out on every side.
    """
    return float(calculate_psnr(_bgr(image), _bgr(reference), border, test_y_channel=True))


def psnr_rgb(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the crops of a batch of their peak signal-to-noise ratio in RGB, dB; at most 100, for equal ones.

    For scores beside a search. Nothing is rounded and no border left out, so figures of ``psnr_y`` do not compare.

    Args:
        outputs: ``[N, 3, h, w]``, clamped to [0, 1] here.
        targets: the same shape, in [0, 1].
    """
    error = (outputs.float().clamp(0, 1) - targets).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp_min(1e-10).log10().mean()


def ssim_y(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """Structural similarity of Y (Wang et al. 2004, Gaussian window of 11 pixels, sigma 1.5), at most 1.

    Args as ``psnr_y``; without the border the images have at least 11 pixels a side.
    """
    return float(calculate_ssim(_bgr(image), _bgr(reference), border, test_y_channel=True))


def _bgr(image: np.ndarray) -> np.ndarray:
    """RGB to the channel order in which BasicSR expects images."""
    return np.ascontiguousarray(image[..., ::-1])


@dataclass(frozen=True)
class FolderScores:
    """Scores on a folder.

    Attributes:
        images: image name to its figures: ``psnr`` (dB), ``ssim``, and ``lpips`` where it was asked for and could be
            had.
    """

    images: dict[str, dict[str, float]]

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each figure over the images."""
        rows = list(self.images.values())
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``write_json``: ``{"mean": {...}, "images": {name: {...}}}``."""
        return {"mean": self.mean, "images": self.images}


def evaluate_folder(
    network: nn.Module,
    folder: str | Path,
    scale: int,
    *,
    lpips: Lpips | None = None,
    name: str | None = None,
    nested: bool = False,
) -> FolderScores:
    """Score a network, in evaluation mode for the time being, on every image of a folder, whole images one by one.

    Args:
        network: as in ``upscaling.upscale``, of the same scale.
        folder: a dataset folder or a folder of high-resolution images (``EvaluationPairs``), perhaps with nested ones.
        lpips: scores perceptual distance too.
        name: what the progress bar shows; the folder's name if None.

    Raises:
        InputError: as ``EvaluationPairs``.
    """
    training = network.training
    network.eval()
    try:
        return _score(lambda image: upscale(network, image), folder, scale, lpips, name or Path(folder).name, nested)
    finally:
        network.train(training)


def evaluate_bicubic(
    folder: str | Path, scale: int, *, lpips: Lpips | None = None, name: str | None = None, nested: bool = False
) -> FolderScores:
    """Score bicubic interpolation on a folder: the baseline every network has to beat.

    Args, Raises: as ``evaluate_folder``.
    """
    name = f"{name or Path(folder).name} bicubic"
    return _score(lambda image: upscale_bicubic(image, scale), folder, scale, lpips, name, nested)


def _score(
    enlarge: Callable[[np.ndarray], np.ndarray],
    folder: str | Path,
    scale: int,
    lpips: Lpips | None,
    name: str,
    nested: bool,
) -> FolderScores:
    """Enlarge every low-resolution image and compare it with its original."""
    pairs = EvaluationPairs(folder, scale, smallest=0 if lpips is None else lpips.SMALLEST, nested=nested)
    images = {}
    for index in tqdm(range(len(pairs)), desc=f"evaluating {name}", unit="image"):
        pair = pairs[index]
        result = enlarge(pair.lr)
        figures = {
            "psnr": psnr_y(result, pair.hr, pairs.scale),
            "ssim": ssim_y(result, pair.hr, pairs.scale),
        }
        if lpips is not None:
            figures["lpips"] = lpips(result, pair.hr)
        images[pair.name] = figures
    return FolderScores(images)
