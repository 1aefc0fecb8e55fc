"""The main job as a user does it, small: prepare, search, train, evaluate, enlarge; and how bad input is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from skimage import data

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.cost import BitOps
from quantnas_ext.errors import InputError
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import load_config
from quantnas_ext.runs.run_folder import RunFolder
from recipes import demo, evaluate, prepare_data, search, train, upscale

ROOT = Path(__file__).parents[2]
CONFIG = {
    "space": {
        "name": "sr_basic",
        "arguments": {
            "scale": 2,
            "width": 6,
            "cells": 1,
            "adq": False,
            "bits": [4, 8],
            "head": ["conv_3x3"],
            "skip": ["conv_1x1"],
            "body": ["conv_3x3", "fac_3x3"],
            "upsample": ["conv_3x3"],
            "tail": ["conv_1x1", "conv_3x3"],
        },
    },
    "data": {"patch": 12, "batch_size": 2},
    "search": {
        "epochs": 2,
        "steps_per_epoch": 3,
        "architecture_learning_rate": 0.3,
        "entropy": 0.1,
        "top_k": 2,
        "threads": 1,
        "costs": [{"cost": "bitops", "input": [1, 3, 48, 48], "penalty": 0.01}],
    },
    "train": {
        "iterations": 4,
        "full_precision_iterations": 2,
        "from_supernet": True,
        "batch_size": 2,
        "patch": 12,
        "learning_rate": 1e-3,
        "validate_every": 4,
        "checkpoint_every": 2,
    },
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, prepared datasets, a configuration and one finished search."""
    folder = tmp_path_factory.mktemp("workshop")
    for name, image in {
        "training/cat": data.chelsea()[:120, :200],
        "held_out/cup": data.coffee()[60:121, 90:161],
    }.items():
        (folder / name).parent.mkdir()
        Image.fromarray(image).save(folder / f"{name}.png")
    prepare_data.main([str(folder / "training"), str(folder / "train"), "--scale", "2", "--crop", "40"])
    config = {**CONFIG, "run": str(folder / "run")}
    config["data"] = {**CONFIG["data"], "train": [str(folder / "train")], "test": {"cup": str(folder / "held_out")}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "1",
        str(ROOT / "recipes/search.py"),
    ]
    command = [*launch, "--config", str(folder / "config.yaml")]
    environment = {**os.environ, "HOME": str(folder / "no_home")}
    with (folder / "terminal.txt").open("wb") as terminal:
        subprocess.run(command, check=True, timeout=300, stdout=terminal, stderr=subprocess.STDOUT, env=environment)
    return folder


def test_the_run_folder_of_a_search_holds_everything(workshop: Path) -> None:
    run = workshop / "run"
    assert load_config(run / "config.yaml") == load_config(workshop / "config.yaml")
    architecture = Architecture.load(run / "architecture.yaml")
    for side in (32, 48):  # the space's own, and the goal's
        assert architecture.cost[f"bitops_{side}"] == BitOps((1, 3, side, side)).of_network(architecture.build())
    assert architecture.provenance["seed"] == 0 and "torch" in architecture.provenance["versions"]
    history = json.loads((run / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history["epochs"]] == [0, 1, 2]
    pictures = [np.asarray(Image.open(path)) for path in sorted((run / "plots").iterdir())]
    derived = json.loads((run / "derived.json").read_text())
    assert derived["epoch"] == 2 and list(derived["scores"]) == ["supernet", "full_precision", "derived"]
    assert all(0 < row["loss"] < 1 and 0 < row["psnr"] < 60 for row in derived["scores"].values())
    first, second = derived["architectures"]
    assert first["log_probability"] >= second["log_probability"] and second["file"] == "architecture_2.yaml"
    other = Architecture.load(run / "architecture_2.yaml")
    assert other.choices != architecture.choices and other.cost["bitops_32"] == second["bitops_32"]
    assert len(pictures) == 3 and all(picture.std() > 5 for picture in pictures)
    assert list((run / "tensorboard").iterdir())


def test_the_user_of_a_search_reads_its_own_lines_alone(workshop: Path) -> None:
    terminal, log = (workshop / "terminal.txt").read_text().lower(), workshop / "run" / "libraries.log"
    assert f"note: messages of nni and other libraries are kept in '{log}'".lower() in terminal
    assert "found in " in terminal and "Experiment initialized successfully" in log.read_text()
    for foreign in ("experiment", "warning:", "matplotlib", "lightning", "no_home"):
        assert foreign not in terminal.replace(str(workshop).lower(), "")


def test_the_found_network_is_trained_scored_and_enlarges_any_image(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workshop / "run"
    train.main(["--config", str(workshop / "config.yaml"), "--architecture", str(run / "architecture.yaml")])
    network = [
        "--architecture",
        str(run / "train/architecture.yaml"),
        "--weights",
        str(run / "train/network.safetensors"),
    ]
    evaluate.main([*network, "--data", f"cup={workshop / 'held_out'}", "--out", str(workshop / "metrics.json")])
    metrics = json.loads((workshop / "metrics.json").read_text())["datasets"]["cup"]
    assert metrics["bicubic"]["mean"]["psnr"] > 20 and set(metrics["network"]["images"]["cup.png"]) == {"psnr", "ssim"}
    grey = workshop / "grey.jpg"
    Image.fromarray(data.camera()[:33, :47]).save(grey)
    upscale.main([*network, str(grey), str(workshop / "held_out"), "--out", str(workshop / "large")])
    assert Image.open(workshop / "large/grey.png").size == (94, 66)
    assert Image.open(workshop / "large/cup.png").size == (142, 122)


def test_the_same_configuration_finds_the_same_architecture_again(workshop: Path) -> None:
    again = workshop / "again"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "recipes/search.py"), "--config", str(workshop / "config.yaml")]
    subprocess.run([*command, "--set", f"run={again}"], check=True, timeout=300, env=environment)
    first, second = (json.loads((folder / "history.json").read_text()) for folder in (workshop / "run", again))
    assert first == second
    assert (again / "weights.safetensors").read_bytes() == (workshop / "run/weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["space.arguments.scale=5"], "scale 5 is not possible; use one of 2, 3, 4"),
        (["space.arguments.bits=[1, 8]"], "1 bits"),
        (["space.arguments.body=[conv3x3]"], "did you mean 'conv_3x3'"),
        (["space.arguments.width=7", "space.arguments.head=[conv_3x3_g3]"], "multiple of 3"),
        (["space.name=sr_basics"], "did you mean 'sr_basic'"),
        (["search.epoch=3"], "did you mean 'search.epochs'"),
        (["search.epochs=0"], "epochs"),
        (["data.train=[nowhere]"], "nowhere"),
        (["data.train=[]"], "data.train"),
        (["data.patch=100"], "100"),
        (["search.warmup_epochs=2"], "warm"),
        (["search.costs=[]", "search.bitops_budget=1"], "(cheapest)"),
    ],
)
def test_a_search_refuses_bad_input_before_it_writes_anything(
    workshop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    sentence: str,
) -> None:
    run = workshop / "refused"
    changes = [word for change in changes for word in ("--set", change)]
    monkeypatch.setattr(
        sys, "argv", ["search.py", "--config", str(workshop / "config.yaml"), "--set", f"run={run}", *changes]
    )
    with pytest.raises(SystemExit) as end:
        command_line.run(search.main)
    *notes, error = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and sentence in error and error.startswith("error: ")
    assert all(note.startswith("note: ") for note in notes)
    assert not run.exists()


def test_an_existing_run_folder_is_refused_and_left_as_it_is(workshop: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (workshop / "run").rglob("*")}
    command = [sys.executable, str(ROOT / "recipes/search.py"), "--config", str(workshop / "config.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 2 and "already holds a run" in result.stderr and "Traceback" not in result.stderr
    other = subprocess.run([*command, "--resume", "--set", "seed=7"], capture_output=True, text=True, timeout=300)
    assert other.returncode == 2 and "another configuration" in other.stderr and "Traceback" not in other.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (workshop / "run").rglob("*")}


def test_the_demo_compares_bicubic_with_both_trainings_and_does_finished_steps_only_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = {**CONFIG, "run": str(run), "data": {**CONFIG["data"], "photographs": str(tmp_path / "photographs")}}
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(config))
    demo.main(["--config", str(tmp_path / "demo.yaml")])
    result = json.loads((run / "evaluation.json").read_text())
    assert set(result) == {"bicubic", "quantized", "full_precision"}
    assert set(result["bicubic"]) == {"psnr", "ssim"} and 32 < result["bicubic"]["psnr"] < 33
    for training, precision in (("quantized", None), ("full_precision", 32)):
        goal = {"bitops_48"} if precision is None else set()
        assert set(result[training]) == {"psnr", "ssim", "bitops_32", "bitops_256", "bytes"} | goal
        found = Architecture.load(run / "architecture.yaml")
        cost = (found if precision is None else found.with_precision(precision)).cost
        assert {name: result[training][name] for name in cost} == cost
    held_out, trained_on = (
        {path.name for path in (tmp_path / "photographs" / f"{part}x2/HR").iterdir()} for part in ("test", "train")
    )
    assert held_out == {"astronaut.png", "chelsea.png", "coffee.png"}
    assert not any(name.startswith(tuple(photo.removesuffix(".png") for photo in held_out)) for name in trained_on)
    assert np.asarray(Image.open(run / "comparison.png")).std() > 5
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    assert len(before) == 5
    capfd.readouterr()
    demo.main(["--config", str(tmp_path / "demo.yaml")])
    assert "bicubic" in capfd.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    with pytest.raises(InputError, match="another configuration"):
        demo.main(["--config", str(tmp_path / "demo.yaml"), "--set", "seed=5"])

    unfinished = run / "full_precision"
    for path in unfinished.iterdir():
        if path.name not in ("config.yaml", "architecture.yaml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    demo.main(["--config", str(tmp_path / "demo.yaml")])
    assert json.loads((run / "evaluation.json").read_text()).keys() == result.keys()
    assert (unfinished / "network.safetensors").is_file()


def test_the_demo_refuses_what_it_cannot_evaluate_before_the_search(tmp_path: Path) -> None:
    for tests in ("{a: x, b: y}", "{}"):
        changes = [f"run={tmp_path / 'run'}", "data.photographs=null", "data.train=[x]", f"data.test={tests}"]
        with pytest.raises(InputError, match="exactly one dataset folder"):
            demo.main([word for change in changes for word in ("--set", change)])
    with pytest.raises(InputError, match="cannot be used"):
        demo.main(["--set", f"run={tmp_path / ('a' * 5000)}"])
    assert not list(tmp_path.iterdir())


def test_a_failed_training_of_the_demo_says_where_its_output_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'quantized' .*above.*'full_precision' .*full_precision\.log"):
        demo.train(RunFolder(tmp_path), ["--config", "demo"])
    assert (tmp_path / "full_precision.log").read_text().startswith("error: architecture file")
