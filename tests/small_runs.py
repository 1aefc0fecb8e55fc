"""Run folders and sweeps as the recipes leave them, made in a moment: for tests of what reads them."""

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from skimage import data
from small_searches import search, tiny_space

from quantnas_ext.architecture import Architecture
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.runs.config import Config, DataConfig, SpaceConfig, save_config
from quantnas_ext.runs.history import SearchHistory
from quantnas_ext.runs.provenance import provenance
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.sr.weights.weight_files import save_weights
from quantnas_ext.sr.weights.weight_identity import WeightIdentity

ARGUMENTS = {
    **{"scale": 2, "width": 6, "cells": 1, "adq": False, "bits": [4, 8], "upsample": ["conv_3x3"]},
    **{"tail": ["conv_1x1"], "head": ["conv_3x3", "conv_5x5"], "body": ["fac_3x3", "conv_5x5"]},
    "skip": ["conv_1x1", "conv_3x3"],
}
"""Of the space of ``small_searches.tiny_space``."""


def photographs(folder: Path) -> Path:
    """Two small photographs to evaluate on."""
    folder.mkdir()
    for name, image in {"cat": data.chelsea()[40:140, 100:220], "cup": data.coffee()[60:160, 90:190]}.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


def searched(folder: Path) -> dict[str, Any]:
    """The history of a real search of three epochs, and the architecture that it found."""
    _, sample, records = search(folder)
    history = SearchHistory(folder / "history.json", ChoiceTree.of(tiny_space()))
    for record in records:
        history.add(record)
    return {"sample": sample, "history": history.to_dict()}


def write_run(
    folder: Path,
    found: dict[str, Any],
    images: Path,
    *,
    seed: int = 0,
    psnr: float = 30.0,
    bits: int | None = None,
    data_set: str = "small",
) -> None:
    """A whole run: search, trained network and evaluation, the latter with a PSNR of choice."""
    folder.mkdir(parents=True, exist_ok=True)
    run, training = RunFolder(folder), RunFolder(folder).training()
    space = SpaceConfig("sr_basic", ARGUMENTS)
    config = Config(seed=seed, run=str(folder), space=space, data=DataConfig(test={data_set: str(images)}))
    save_config(config, run.config)
    choices = {k: bits if bits and k.endswith("bits") else value for k, value in found["sample"].items()}
    source = provenance(config, search_seconds=12.5)
    architecture = Architecture.of("sr_basic", ARGUMENTS, choices, source)
    architecture.save(run.architecture)
    run.history.write_text(json.dumps(found["history"]))
    run.derived.write_text(json.dumps({"epoch": 3, "scores": {}, "architectures": []}))
    training.path.mkdir()
    architecture.save(training.architecture)
    torch.manual_seed(seed)
    network = architecture.build()
    network(torch.rand(2, 3, 8, 8))  # quantizers take their steps from a first batch
    save_weights(network.state_dict(), training.weights, WeightIdentity.of(architecture, "trained, 0 iterations"))
    means = {"bicubic": {"psnr": 29.0, "ssim": 0.8}, "network": {"psnr": psnr, "ssim": 0.85}}
    datasets = {data_set: {"folder": str(images), **{name: {"mean": mean} for name, mean in means.items()}}}
    run.evaluation.write_text(json.dumps({"scale": 2, "cost": architecture.cost, "datasets": datasets}))


def write_trial(sweep: Path, name: str, status: str = "done", **told: Any) -> Path:
    """The file that says what a trial of a sweep is; returns the trial's folder."""
    folder = sweep / "trials" / name.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "method": "quantization noise", "seed": 0, "budget": None, "status": status, "error": None}
    (folder / "trial.json").write_text(json.dumps(content | told))
    return folder
