from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn

from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.degradation import crop_to_multiple, downscale, upscale_bicubic
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.images import image_to_tensor, tensor_to_image, write_png
from quantnas_ext.sr.evaluation.metrics import evaluate_bicubic, evaluate_folder, psnr_y, ssim_y
from quantnas_ext.sr.evaluation.score_files import scores_table, write_json


class Bicubic(nn.Module):
    """Bicubic interpolation as a network; counts whether it was called in evaluation mode."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.unused = nn.Parameter(torch.zeros(()))
        self.modes: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.modes.add(self.training)
        return image_to_tensor(upscale_bicubic(tensor_to_image(x), self.scale)) + 0.3 / 255  # lost by rounding


def test_psnr_and_ssim_agree_with_scikit_image_on_y(photographs: dict[str, np.ndarray]) -> None:
    for scale in (2, 4):
        reference = crop_to_multiple(photographs["chelsea"], scale)
        image = upscale_bicubic(downscale(reference, scale), scale)
        inner = slice(scale, -scale)
        y, y_reference = (rgb2ycbcr(each)[inner, inner, 0] for each in (image, reference))
        assert psnr_y(image, reference, scale) == pytest.approx(
            peak_signal_noise_ratio(y_reference, y, data_range=255), abs=1e-3
        )
        similarity = structural_similarity(
            y_reference, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert ssim_y(image, reference, scale) == pytest.approx(similarity, abs=1e-5)


def test_a_network_that_is_bicubic_scores_like_bicubic(hr_folder: Path) -> None:
    network = Bicubic(3).train()
    scores, baseline = evaluate_folder(network, hr_folder, 3), evaluate_bicubic(hr_folder, 3)
    assert scores == baseline and set(scores.images) == {"astronaut.png", "chelsea.png", "coffee.png"}
    assert scores.mean["psnr"] == pytest.approx(np.mean([row["psnr"] for row in scores.images.values()]))
    assert network.modes == {False} and network.training


def test_scores_are_those_of_the_low_resolution_images_on_disk(hr_folder: Path, tmp_path: Path) -> None:
    folder = prepare_dataset_folder(hr_folder, tmp_path / "data", 2)
    assert evaluate_bicubic(folder, 2) == evaluate_bicubic(hr_folder, 2)
    write_png(folder / "LRx2" / "coffee.png", np.zeros((60, 65, 3), np.uint8))
    assert evaluate_bicubic(folder, 2).images["coffee.png"]["psnr"] < 15
    assert evaluate_bicubic(folder, 3) == evaluate_bicubic(hr_folder, 3)  # no LRx3: made in memory


def test_images_too_small_for_the_window_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "small.png", np.zeros((40, 21, 3), np.uint8))
    with pytest.raises(InputError, match=r"small.png' of 21x40 pixels is too small to be scored at scale 4"):
        evaluate_bicubic(tmp_path, 4)
    write_png(tmp_path / "small.png", np.zeros((40, 22, 3), np.uint8))
    assert evaluate_bicubic(tmp_path, 4).mean["psnr"] == float("inf")


def test_files_and_tables_hold_means_and_images(hr_folder: Path, tmp_path: Path) -> None:
    scores = evaluate_bicubic(hr_folder, 4)
    scores.images["flat.png"] = {"psnr": float("inf"), "ssim": 1.0}
    write_json({"own": scores.to_dict()}, tmp_path / "scores.json")
    read = json.loads((tmp_path / "scores.json").read_text())["own"]
    assert read["images"]["flat.png"]["psnr"] is None and read["images"]["coffee.png"] == scores.images["coffee.png"]
    lines = scores_table({"own": {"bicubic": evaluate_bicubic(hr_folder, 4)}}).splitlines()
    assert lines[0].split() == ["data", "method", "PSNR,", "dB", "SSIM"]
    assert lines[2].split()[2] == f"{evaluate_bicubic(hr_folder, 4).mean['psnr']:.2f}"
