"""A tiny network and small pieces of photographs that ship with scikit-image."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from quantnas_ext.architecture import Architecture
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.weights.weight_files import save_weights

ROOT = Path(__file__).parents[2]
SCALE = 2
BITS = {"head_0": 8, "head_1": 4, "body_0": 8, "body_1": 4, "body_skip": 8, "upsample_0": 8, "tail_0": 8, "tail_1": 4}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment of a process that runs this checkout's code."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def photographs() -> dict[str, np.ndarray]:
    return {
        "astronaut": data.astronaut()[:150, 150:301],
        "chelsea": data.chelsea()[60:180, 90:230],
        "coffee": data.coffee()[100:220, 200:330],
    }


@pytest.fixture(scope="session")
def hr_folder(photographs: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, image in photographs.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def dataset_folder(hr_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_dataset_folder(hr_folder, tmp_path_factory.mktemp("data") / "cut", SCALE, crop=64, step=48)


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    arguments = {
        "scale": SCALE,
        "width": 6,
        "cells": 1,
        "adq": False,
        "bits": [4, 8],
        **dict.fromkeys(("head", "body", "skip", "upsample", "tail"), ["conv_3x3"]),
    }
    choices: dict[str, str | int] = dict.fromkeys(BITS, "conv_3x3")
    return Architecture.of(
        "sr_basic", arguments, choices | {f"{block}__conv_3x3__bits": bits for block, bits in BITS.items()}
    )


@pytest.fixture(scope="session")
def search_folder(architecture: Architecture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a search leaves: an architecture file, and weights that have seen a batch."""
    folder = tmp_path_factory.mktemp("search")
    architecture.save(folder / "architecture.yaml")
    torch.manual_seed(0)
    network = architecture.build()
    network(torch.rand(1, 3, 16, 16))
    save_weights(network.state_dict(), folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="session")
def recipe() -> Callable[[str], Callable[[list[str]], None]]:
    """The `main` of a recipe by its name."""

    def main(name: str) -> Callable[[list[str]], None]:
        spec = importlib.util.spec_from_file_location(f"recipe_{name}", ROOT / "recipes" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main

    return main


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    folder = Path(os.environ.get("QUANTNAS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the benchmark images in {folder} (or QUANTNAS_DATA)")
    return folder
