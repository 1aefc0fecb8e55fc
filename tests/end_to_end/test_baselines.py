"""The baselines as a user makes them, small; and how bad input is refused."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from skimage import data

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import load_config
from quantnas_ext.sr.baseline_searches import full_precision_step
from quantnas_ext.sr.training.arch import QuantNASNetwork
from recipes import baseline, prepare_data, search

ARGUMENTS = {
    "scale": 2,
    "width": 6,
    "cells": 1,
    "adq": False,
    "bits": [4, 8],
    "first_bits": 8,
    "head": ["conv_3x3"],
    "skip": ["conv_1x1"],
    "body": ["conv_1x1", "conv_3x3"],
    "upsample": ["conv_3x3"],
    "tail": ["conv_1x1", "conv_3x3"],
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file beside its data."""
    folder = tmp_path_factory.mktemp("baselines")
    (folder / "images").mkdir()
    Image.fromarray(data.chelsea()[:80, :120]).save(folder / "images" / "cat.png")
    prepare_data.main([str(folder / "images"), str(folder / "train"), "--scale", "2", "--crop", "40"])
    content = {
        "run": str(folder / "run"),
        "space": {"name": "sr_basic", "arguments": ARGUMENTS},
        "data": {"patch": 12, "batch_size": 2, "train": [str(folder / "train")]},
        "search": {"epochs": 2, "steps_per_epoch": 2, "architecture_learning_rate": 0.3, "threads": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder / "config.yaml"


def operations(architecture: Architecture) -> dict[str, Any]:
    return {label: value for label, value in architecture.choices.items() if "__" not in label}


def bits(architecture: Architecture) -> set[Any]:
    return {value for label, value in architecture.choices.items() if "__" in label}


def test_random_architectures_are_files_within_the_budget_and_one_precision_changes_precisions_only(
    config: Path, tmp_path: Path
) -> None:
    given = ["--config", str(config), "--count", "4", "--bitops-budget", "9e7"]
    for name in ("first", "again"):
        baseline.main(["random", *given, "--output", str(tmp_path / name)])
    files = sorted((tmp_path / "first").iterdir())
    assert [path.read_bytes() for path in files] == [
        path.read_bytes() for path in sorted((tmp_path / "again").iterdir())
    ]
    found = [Architecture.load(path) for path in files]
    assert len({str(architecture.choices) for architecture in found}) == 4
    assert all(0.95 * 9e7 <= architecture.cost["bitops_32"] <= 9e7 for architecture in found)
    assert found[0].provenance["drawn"] == "uniformly"

    for precision, expected in (("w4a8", {"w4a8", 8}), ("32", {32})):
        given = ["--architecture", str(files[0]), "--precision", precision, "--output", str(tmp_path / precision)]
        baseline.main(["uniform", *given])
        changed = Architecture.load(tmp_path / precision)
        assert operations(changed) == operations(found[0]) and bits(changed) == expected


def test_two_steps_keep_the_operations_of_the_first_and_the_budget_in_the_second(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def in_this_process(command: list[str]) -> subprocess.CompletedProcess[str]:
        started.append(command)
        assert command[0] == sys.executable and Path(command[1]).samefile(search.__file__)
        with monkeypatch.context() as interrupted:
            if len(started) == 2:
                interrupted.setattr("quantnas_ext.search.result.run_experiment", interrupt)
            search.main(command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(baseline.subprocess, "run", in_this_process)
    two_step = ["two_step", "--config", str(config), "--set", "search.bitops_budget=9e7"]
    with pytest.raises(KeyboardInterrupt):
        baseline.main(two_step)
    baseline.main(two_step)
    baseline.main(two_step)
    steps = [Path(command[3]).stem for command in started]
    assert steps == ["full_precision", "precisions", "precisions"]
    assert ["--resume" in command for command in started] == [False, False, True]

    run = Path(load_config(config).run)
    first, second = (Architecture.load(run / step / "architecture.yaml") for step in ("full_precision", "precisions"))
    assert bits(first) == {32} and first.arguments["first_bits"] == 32
    assert operations(second) == operations(first) and bits(second) <= {4, 8}
    assert second.arguments == ARGUMENTS and second.cost["bitops_32"] <= 9e7
    QuantNASNetwork(str(run / "precisions/architecture.yaml"), weights=str(run / "precisions/weights.safetensors"))


def test_the_first_of_two_steps_has_the_budgets_of_full_precision(config: Path) -> None:
    limits = ["search.bitops_budget=9e7", "search.bytes_budget=4e3"]
    first = full_precision_step(load_config(config, limits)).search
    assert first.bitops_budget == pytest.approx(9e7 * 32 * 32 / 32)  # the geometric mean of 4 * 4 and 8 * 8
    assert first.bytes_budget == pytest.approx(4e3 * 32 / 32**0.5)


@pytest.mark.filterwarnings("ignore")
def test_nnis_darts_fills_a_run_folder(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "darts"
    baseline.main(["darts", "--config", str(config), "--set", f"run={run}"])
    architecture = Architecture.load(run / "architecture.yaml")
    assert architecture.arguments == ARGUMENTS and architecture.provenance["strategy"] == "nni.nas.strategy.DARTS"
    QuantNASNetwork(str(run / "architecture.yaml"), weights=str(run / "weights.safetensors"))
    assert load_config(run / "config.yaml").space == load_config(config).space
    assert list((run / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("random --count 0 --output NEW", "a whole number of at least 1"),
        ("random --count 9999 --output NEW", "are not possible"),
        ("random --count 2 --bitops-budget 1 --output NEW", "(cheapest)"),
        ("random --count 2 --bitops-budget nan --output NEW", "number above 0"),
        ("random --count 2 --output FOLDER", "already holds a run"),
        ("random --count 2 --output NEW --set space.arguments.scale=5", "use one of 2, 3, 4"),
        ("uniform --architecture absent.yaml --precision 8 --output NEW", "does not exist"),
        ("uniform --architecture ARCHITECTURE --precision 1 --output NEW", "1 bits"),
        ("uniform --architecture ARCHITECTURE --precision 8 --output ARCHITECTURE", "already exists"),
        ("two_step --set run=NEW --set search.bitops_budget=1", "(cheapest)"),
        ("two_step --set run=NEW --set space.arguments.bits=[8]", "at least two precisions"),
        ("two_step --set run=NEW --set data.train=[absent]", "absent"),
        ("two_step --set run=NEW --set search.operations=ARCHITECTURE", "set 'search.operations' to null"),
        ("two_step --set run=FOLDER", "already holds a run"),
        ("random --count 2 --output NEW --set search.bytes_budget=1", "budget of 1 bytes"),
        ("random --count 2 --output NEW --set search.operations=ARCHITECTURE", "set 'search.operations' to null"),
        ("two_step --set run=NEW --set search.bytes_budget=1", "budget of 1 bytes"),
        ("darts --set run=NEW --set search.bitops_budget=1e8", "keeps no budget"),
        ("darts --set run=NEW --set search.bytes_budget=1e4", "set 'search.bytes_budget' to null"),
        ("darts --set run=NEW --set search.operations=ARCHITECTURE", "set 'search.operations' to null"),
        ("darts --set run=NEW --set data.train=[]", "there is nothing to search on"),
        ("darts --set run=NEW --set space.name=sr_rfdn --set 'space.arguments={scale: 2, width: 12}'", "15"),
        ("darts --set run=NEW --set search.epoch=3", "did you mean 'search.epochs'"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing_behind(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    sentence: str,
) -> None:
    architecture = tmp_path / "folder" / "architecture.yaml"
    architecture.parent.mkdir()
    choices = {"head_0": "conv_3x3", "head_1": "conv_3x3", "body_0": "conv_3x3", "body_1": "conv_1x1"}
    choices |= {"body_skip": "conv_1x1", "upsample_0": "conv_3x3", "tail_0": "conv_1x1", "tail_1": "conv_1x1"}
    precisions = {f"{block}__{operation}__bits": 8 for block, operation in choices.items()}
    Architecture.of("sr_basic", ARGUMENTS, {**choices, **precisions}).save(architecture)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    places = {"NEW": tmp_path / "new", "FOLDER": architecture.parent, "ARCHITECTURE": architecture}
    for name, path in places.items():
        command = command.replace(name, str(path))
    kind, *rest = shlex.split(command)
    given = [] if kind == "uniform" else ["--config", str(config)]
    monkeypatch.setattr(sys, "argv", ["baseline.py", kind, *given, *rest])
    with pytest.raises(SystemExit) as end:
        command_line.run(baseline.main)
    *notes, error = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and sentence in error and error.startswith("error: ")
    assert all(note.startswith("note: ") for note in notes)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("absent.yaml", "'absent.yaml' does not exist"),
        ("OTHER", "search.operations.* no operation for block 'head_2'"),
    ],
)
def test_a_search_refuses_operations_that_are_not_those_of_its_space(
    config: Path, tmp_path: Path, file: str, sentence: str
) -> None:
    baseline.main(["random", "--config", str(config), "--count", "1", "--output", str(tmp_path / "random")])
    file = file.replace("OTHER", str(tmp_path / "random/architecture_000.yaml"))
    changes = [f"run={tmp_path / 'run'}", f"search.operations={file}", "space.arguments.head_blocks=3"]
    with pytest.raises(InputError, match=sentence):
        search.main(["--config", str(config), *(word for change in changes for word in ("--set", change))])
    assert not (tmp_path / "run").exists()
