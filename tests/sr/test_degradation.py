from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantnas_ext.arguments import check_scale
from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.degradation import crop_to_multiple, downscale, upscale_bicubic
from quantnas_ext.sr.evaluation.metrics import evaluate_bicubic


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_low_resolution_is_antialiased_bicubic_rounded_to_8_bits(
    photographs: dict[str, np.ndarray], scale: int
) -> None:
    image = crop_to_multiple(photographs["astronaut"], scale)
    assert image.shape == (150 // scale * scale, 151 // scale * scale, 3)
    small = downscale(image, scale)
    height, width = small.shape[:2]
    assert (height * scale, width * scale) == image.shape[:2]
    # Pillow's bicubic is the same cubic (a = -1/2) widened by the scale, in floating point; only borders differ.
    for channel in range(3):
        plane = Image.fromarray(image[..., channel].astype(np.float32))
        reference = np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 255).round()
        difference = np.abs(reference - small[..., channel])[3:-3, 3:-3]
        assert difference.max() <= 1 and (difference > 0).mean() < 0.001


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarging_keeps_tiny_and_grey_images_in_shape(photographs: dict[str, np.ndarray], scale: int) -> None:
    image = photographs["chelsea"]
    for height, width in ((1, 1), (2, 7), (20, 3)):
        assert upscale_bicubic(image[:height, :width], scale).shape == (height * scale, width * scale, 3)
    assert np.array_equal(upscale_bicubic(image[..., 0], scale), upscale_bicubic(image, scale)[..., 0])


def test_too_small_images_and_impossible_scales_are_refused(photographs: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match=r"tiny.png' of 40x12 pixels is too small for scale 4"):
        downscale(photographs["coffee"][:12, :40], 4, "tiny.png")
    with pytest.raises(InputError, match="scale 5 is not possible; use one of 2, 3, 4"):
        check_scale(5)


@pytest.mark.parametrize(("name", "psnr", "ssim"), [("Set5", 28.43, 0.8113), ("Set14", 26.09, 0.7050)])
def test_bicubic_has_its_known_figures_at_scale_4(benchmark_data: Path, name: str, psnr: float, ssim: float) -> None:
    mean = evaluate_bicubic(benchmark_data / name, 4).mean
    assert mean["psnr"] == pytest.approx(psnr, abs=0.01) and mean["ssim"] == pytest.approx(ssim, abs=0.0002)
