"""Final training through the recipes, and going on by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import quantized_layers
from quantnas_ext.runs.config import load_config
from quantnas_ext.sr.data.images import read_picture
from quantnas_ext.sr.evaluation.metrics import evaluate_folder
from quantnas_ext.sr.training.arch import QuantNASNetwork
from quantnas_ext.sr.training.final_training import train
from quantnas_ext.sr.weights.weight_files import read_weight_file

Recipe = Callable[[str], Callable[[list[str]], None]]


@pytest.fixture(scope="module")
def start(
    recipe: Recipe, search_folder: Path, dataset_folder: Path, hr_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Train for eight iterations, the first four in full precision; returns the run folder."""

    def start(*overrides: str) -> Path:
        run = tmp_path_factory.mktemp("runs") / "run"
        values = [
            "seed=5",
            f"data.train=[{dataset_folder}]",
            f"data.test={{own: {hr_folder}}}",
            "train.iterations=8",
            "train.full_precision_iterations=4",
            "train.learning_rate=0.01",
            "train.batch_size=4",
            "train.patch=16",
            "train.checkpoint_every=2",
            "train.validate_every=4",
            *overrides,
        ]
        arguments = [argument for value in values for argument in ("--set", value)]
        recipe("train")(["--architecture", str(search_folder / "architecture.yaml"), "--run", str(run), *arguments])
        return run

    return start


@pytest.fixture(scope="module")
def run(start: Callable[..., Path]) -> Path:
    return start()


def test_a_run_folder_holds_everything(run: Path, architecture: Architecture, hr_folder: Path) -> None:
    assert {entry.name for entry in run.iterdir() if entry.is_dir()} == {"experiments", "tb_logger"}
    assert {entry.name for entry in run.iterdir() if entry.is_file()} == {
        "architecture.yaml",
        "config.yaml",
        "network.safetensors",
        "options.yml",
        "threads.json",
        "train.log",
        ".lock",
    }
    assert load_config(run / "config.yaml").train.full_precision_iterations == 4
    assert Architecture.load(run / "architecture.yaml").choices == architecture.choices
    log = (run / "train.log").read_text()
    assert log.count("Validation own") == 2 and list((run / "tb_logger" / "train").glob("events*"))
    network = QuantNASNetwork(str(run / "architecture.yaml"), weights=str(run / "network.safetensors"))
    assert all(layer.activation_quantizer.started for layer in quantized_layers(network))
    mean = evaluate_folder(network, hr_folder, 2).mean
    assert f"# psnr: {mean['psnr']:.4f}" in log.split("Validation own")[-1]
    assert f"# ssim: {mean['ssim']:.4f}" in log.split("Validation own")[-1]


def test_the_same_seed_gives_the_same_weights_bit_for_bit(run: Path, start: Callable[..., Path]) -> None:
    first, again, other = (
        read_weight_file(folder / "network.safetensors").weights for folder in (run, start(), start("seed=6"))
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    assert "Start training" in (run / "train.log").read_text()


def test_a_training_goes_on_by_hand_where_it_was_cut_short(
    run: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    cut = Path(shutil.copytree(run, tmp_path / "run"))
    (cut / "network.safetensors").unlink()
    for kind, pattern in (("models", "net_g_{}.pth"), ("training_states", "{}.state")):
        for iteration in (6, 8, "latest"):
            (cut / "experiments" / "train" / kind / pattern.format(iteration)).unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "quantnas_ext.sr.train", "-opt", str(cut / "options.yml"), "--auto_resume"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    log = (cut / "train.log").read_text()
    assert log.startswith((run / "train.log").read_text())
    assert "Resuming training from epoch: 0, iter: 4." in log
    assert (cut / "experiments" / "train" / "training_states" / "8.state").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    resumed, whole = (read_weight_file(folder / "network.safetensors").weights for folder in (cut, run))
    assert all(value for key, value in resumed.items() if key.endswith("started"))
    # Other crops after the interruption, hence near and not equal.
    distance = max((resumed[key] - whole[key]).abs().max() for key in whole if key.endswith("weight"))
    assert 0 < distance < 0.05


@pytest.mark.skipif(torch.cuda.is_available(), reason="with GPUs each process needs its own")
def test_two_processes_train_together(run: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    shutil.copy(run / "options.yml", tmp_path / "options.yml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, "-m", "quantnas_ext.sr.train", "-opt", str(tmp_path / "options.yml"), "--launcher", "pytorch"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained weights") == 1
    log = (tmp_path / "train.log").read_text()
    assert "world_size: 2" in log and log.count("End of training") == 1
    weights, alone = (read_weight_file(folder / "network.safetensors").weights for folder in (tmp_path, run))
    assert all(value for key, value in weights.items() if key.endswith("started"))
    assert not all(torch.equal(weights[key], alone[key]) for key in alone)  # twice the crops in each iteration


def test_the_supernet_s_weights_are_the_start_in_found_and_in_full_precision(
    start: Callable[..., Path], search_folder: Path
) -> None:
    found = read_weight_file(search_folder / "weights.safetensors").weights
    standing_still = (
        "train.from_supernet=true",
        "train.iterations=1",
        "train.full_precision_iterations=0",
        "train.learning_rate=1e-12",
    )
    quantized = read_weight_file(start(*standing_still) / "network.safetensors").weights
    assert all(torch.allclose(quantized[key], found[key]) for key in found)
    run = start(*standing_still, "train.precision=32")
    full_precision = read_weight_file(run / "network.safetensors").weights
    assert full_precision.keys() < found.keys()
    assert all(torch.allclose(value, found[key]) for key, value in full_precision.items())
    cost = Architecture.load(run / "architecture.yaml").cost
    assert cost["bitops_32"] > 10 * Architecture.load(search_folder / "architecture.yaml").cost["bitops_32"]


def test_evaluation_writes_figures_of_every_image(run: Path, recipe: Recipe, hr_folder: Path, tmp_path: Path) -> None:
    network = ["--architecture", str(run / "architecture.yaml"), "--weights", str(run / "network.safetensors")]
    recipe("evaluate")(
        [*network, "--data", f"one={hr_folder}", "--data", f"two={hr_folder}", "--out", str(tmp_path / "metrics.json")]
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["cost"] == Architecture.load(run / "architecture.yaml").cost and metrics["scale"] == 2
    assert metrics["datasets"].keys() == {"one", "two"}
    for found in metrics["datasets"].values():
        for method in ("bicubic", "network"):
            images = found[method]["images"]
            assert images.keys() == {"astronaut.png", "chelsea.png", "coffee.png"}
            for figure, mean in found[method]["mean"].items():
                assert mean == pytest.approx(np.mean([row[figure] for row in images.values()]))


def test_any_image_or_folder_is_enlarged(
    run: Path, recipe: Recipe, hr_folder: Path, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    Image.fromarray(photographs["coffee"][:7, :9, 0]).save(tmp_path / "grey.bmp")
    network = ["--architecture", str(run / "architecture.yaml"), "--weights", str(run / "network.safetensors")]
    recipe("upscale")([*network, str(hr_folder), str(tmp_path / "grey.bmp"), "--out", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "grey.png",
    ]
    grey = read_picture(tmp_path / "out" / "grey.png")
    assert grey.grey and grey.rgb.shape == (14, 18, 3)


def test_a_wrong_options_file_is_refused_before_anything_is_moved(run: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    options = ["-opt", str(run / "options.yml"), "--force_yml"]
    for override, reason in {
        "model_type=QuantNASMode": "unknown model_type 'QuantNASMode'; did you mean 'QuantNASModel'",
        "network_g:type=None": "lacks 'network_g:type'",
        "network_g:architecture=absent.yaml": "absent.yaml' does not exist",
        "datasets:train:folders=[absent]": "dataset folder 'absent' does not exist",
        "datasets:val_1:folder=absent": "absent' does not exist",
        "train:full_precision_iter=8": "8 full-precision iterations leave none of 8",
    }.items():
        with pytest.raises(InputError, match=reason):
            train([*options, override])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
