"""A sweep of seconds: its images and the configuration of its trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from skimage import data

from recipes import prepare_data

CONFIG: dict[str, Any] = {
    "space": {
        "name": "sr_basic",
        "arguments": {
            "scale": 2, "width": 4, "cells": 1, "adq": False, "bits": [4, 8], "head": ["conv_3x3"],
            "skip": ["conv_1x1"], "body": ["conv_3x3", "conv_1x1"], "upsample": ["conv_3x3"],
            "tail": ["conv_1x1", "conv_3x3"],
        },
    },
    "search": {"epochs": 3, "warmup_epochs": 2, "steps_per_epoch": 2, "architecture_learning_rate": 0.3, "threads": 1},
    "train": {
        "iterations": 2, "full_precision_iterations": 1, "batch_size": 1, "patch": 12, "validate_every": 2,
        "checkpoint_every": 2,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training set, an image to score on and a configuration."""
    folder = tmp_path_factory.mktemp("sweeps")
    images = {"training/cat": data.chelsea()[:100, :160], "held_out/cup": data.coffee()[60:92, 90:122]}
    for name, image in images.items():
        (folder / name).parent.mkdir()
        Image.fromarray(image).save(folder / f"{name}.png")
    prepare_data.main([str(folder / "training"), str(folder / "train"), "--scale", "2", "--crop", "40"])
    sets = {"patch": 12, "batch_size": 2, "train": [str(folder / "train")], "test": {"cup": str(folder / "held_out")}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "data": sets}))
    return folder
