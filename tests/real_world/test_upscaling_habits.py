"""How people enlarge: large scans, a second run over the same folder, a folder that cannot be written."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.images import image_to_tensor, read_picture, write_png
from quantnas_ext.sr.weights.weight_files import save_weights
from quantnas_ext.sr.weights.weight_identity import WeightIdentity
from recipes import upscale

PHOTOGRAPH = data.coffee()[100:221, 200:343]


@pytest.fixture(autouse=True)
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a small trained network, and a working directory with a photograph in it."""
    monkeypatch.chdir(tmp_path)
    kinds = dict.fromkeys(("head", "body", "skip", "upsample", "tail"), ["conv_3x3"])
    arguments = {"scale": 2, "width": 6, "cells": 1, "adq": False, "bits": [8], **kinds}
    labels = ("head_0", "head_1", "body_0", "body_1", "body_skip", "upsample_0", "tail_0", "tail_1")
    choices: dict[str, Any] = dict.fromkeys(labels, "conv_3x3") | {f"{label}__conv_3x3__bits": 8 for label in labels}
    architecture = Architecture.of("sr_basic", arguments, choices)
    architecture.save("architecture.yaml")
    torch.manual_seed(0)
    network = architecture.build()
    network(image_to_tensor(PHOTOGRAPH[:48, :48]))
    save_weights(network.state_dict(), "weights.safetensors", WeightIdentity.of(architecture, "trained"))
    write_png("photograph.png", np.dstack([PHOTOGRAPH, PHOTOGRAPH[..., 0]]))
    return ["--architecture", "architecture.yaml", "--weights", "weights.safetensors"]


def test_a_photograph_larger_than_a_tile_comes_out_as_it_does_whole(network: list[str]) -> None:
    for name, tile in (("whole", "0"), ("tiles", "48"), ("default", "512")):
        upscale.main([*network, "photograph.png", "--out", name, "--tile", tile])
    whole = Path("whole/photograph.png").read_bytes()
    assert whole == Path("tiles/photograph.png").read_bytes() == Path("default/photograph.png").read_bytes()
    picture = read_picture("whole/photograph.png")
    assert picture.rgb.shape == (242, 286, 3) and picture.alpha is not None


def test_a_scan_beyond_pillow_s_limit_is_enlarged(network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PHOTOGRAPH[..., 0].size // 3)
    upscale.main([*network, "photograph.png", "--out", "new"])
    assert Path("new/photograph.png").is_file()
    assert Image.MAX_IMAGE_PIXELS == PHOTOGRAPH[..., 0].size // 3


def test_a_second_run_does_what_is_missing(network: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_png("second.png", PHOTOGRAPH[:20, :30])
    Path("new").mkdir()
    Path("new/photograph.png").write_text("an earlier result")
    with pytest.raises(InputError, match="new/photograph.png' already exists; .* or add --skip-existing"):
        upscale.main([*network, "photograph.png", "second.png", "--out", "new"])
    upscale.main([*network, "photograph.png", "second.png", "--out", "new", "--skip-existing"])
    assert "1 images in new, 1 were there already" in capsys.readouterr().out
    assert Path("new/photograph.png").read_text() == "an earlier result"
    assert read_picture("new/second.png").rgb.shape == (40, 60, 3)


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_read(
    network: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscale, "read_picture", None)
    for out, reason in {
        "photograph.png/deep/new": "'photograph.png' is a file",
        "/proc/new": "folder '/proc/new' cannot be written to",
        "x" * 300: "cannot be written to",
    }.items():
        with pytest.raises(InputError, match=reason) as caught:
            upscale.main([*network, "photograph.png", "--out", out])
        assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_no_half_result(network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: Image.Image, path: Path, **more: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(InputError, match=r"new/photograph.png' cannot be written \(No space left on device\)"):
        upscale.main([*network, "photograph.png", "--out", "new"])
    assert list(Path("new").iterdir()) == []


def test_too_little_memory_is_a_sentence(network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"
        )

    monkeypatch.setattr("quantnas_ext.sr.evaluation.upscaling.upscale_picture", fails)
    with pytest.raises(InputError, match="memory does not suffice to enlarge 'photograph.png'; give a smaller --tile"):
        upscale.main([*network, "photograph.png", "--out", "new", "--tile", "0"])
