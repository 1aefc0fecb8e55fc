from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import alexnet

from quantnas_ext.errors import InputError
from quantnas_ext.sr.evaluation import perceptual
from quantnas_ext.sr.evaluation.metrics import evaluate_bicubic
from quantnas_ext.sr.evaluation.perceptual import backbone_file, load_lpips


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(perceptual.urllib.request, "urlopen", unreachable)
    return tmp_path


def test_without_its_backbone_lpips_says_what_to_put_where(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_lpips() is None
    message = capsys.readouterr().err
    assert f"at {hub}/hub/checkpoints/alexnet-owt-7be5be79.pth" in message and "no route" in message
    assert not list((hub / "hub" / "checkpoints").iterdir())


def test_a_foreign_backbone_file_is_reported_not_raised(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone_file().parent.mkdir(parents=True)
    backbone_file().write_text("not weights")
    assert load_lpips() is None
    assert str(backbone_file()) in capsys.readouterr().err


def test_with_its_backbone_lpips_is_zero_for_equal_images_and_grows_with_blur(
    hub: Path, hr_folder: Path, photographs: dict[str, np.ndarray]
) -> None:
    torch.manual_seed(0)
    state = alexnet().state_dict()
    for key in state:
        if key.startswith("classifier"):  # unused by LPIPS: keep the file small
            state[key] = torch.zeros(()).expand(state[key].shape)
    backbone_file().parent.mkdir(parents=True)
    torch.save(state, backbone_file())
    lpips = load_lpips()
    assert lpips is not None
    assert lpips(photographs["coffee"], photographs["coffee"]) == 0
    mild, strong = (evaluate_bicubic(hr_folder, scale, lpips=lpips).mean["lpips"] for scale in (2, 4))
    assert 0 < mild < strong

    Image.fromarray(photographs["coffee"][:32, :32]).save(hub / "small.png")
    assert evaluate_bicubic(hub, 2, lpips=lpips).mean["lpips"] > 0
    Image.fromarray(photographs["coffee"][:32, :31]).save(hub / "small.png")
    with pytest.raises(InputError, match="31x32 pixels is too small to be scored .* at least 32 pixels"):
        evaluate_bicubic(hub, 2, lpips=lpips)
