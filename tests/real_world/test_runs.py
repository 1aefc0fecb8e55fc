"""Run folders that are moved, renamed, named in other ways, or asked to go on with something else."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from nni.tools.nnictl.config_utils import Experiments
from PIL import Image

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.runs.config import load_config, save_config
from quantnas_ext.runs.history import SearchHistory
from quantnas_ext.runs.run_folder import RunFolder, TrainingFolder
from quantnas_ext.runs.run_identity import check_same_run
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.weights.weight_files import save_weights
from recipes import demo, evaluate, search

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
    "search": {"epochs": 3, "steps_per_epoch": 2, "architecture_learning_rate": 0.3, "threads": 1},
    "train": {"iterations": 4},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a configuration, a search that was stopped in its second epoch, and one that was not."""
    project = tmp_path_factory.mktemp("project")
    (project / "images").mkdir()
    random = np.random.default_rng(0)
    for name in "abcd":
        pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 96)).save(project / "images" / f"{name}.png")
    prepare_dataset_folder(project / "images", project / "data", 2)
    config = {**CONFIG, "run": str(project / "whole")}
    config["data"] = {"train": [str(project / "data")], "patch": 12, "batch_size": 2}
    (project / "my.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        # NNI's own list of experiments, below a home that is not there: nobody may open it.
        patch.setattr(Experiments.__init__, "__defaults__", ("/proc/nonexistent/nni-experiments",))
        search.main(["--config", str(project / "my.yaml")])

    def stop(history: SearchHistory, record: object) -> None:
        add(history, record)
        if len(history.records) == 3:
            raise KeyboardInterrupt

    add = SearchHistory.add
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SearchHistory, "add", stop)
        search.main(["--config", str(project / "my.yaml"), "--set", f"run={project}/stopped"])
    return project


@pytest.fixture
def moved(project: Path, tmp_path: Path) -> Path:
    """The stopped search, moved to another place."""
    return Path(shutil.copytree(project / "stopped", tmp_path / "moved"))


def test_a_search_without_a_home_keeps_the_list_of_experiments_in_its_run_folder(project: Path) -> None:
    for run in ("whole", "stopped"):
        (experiment,) = json.loads((project / run / "nni" / ".experiment").read_text()).values()
        assert experiment["status"] == "STOPPED" and experiment["logDir"] == str(project / run / "nni")


def test_a_search_that_was_stopped_says_how_it_goes_on(project: Path) -> None:
    with pytest.raises(InputError, match="already holds a run; .*; a search goes on with --resume"):
        search.main(["--config", str(project / "my.yaml"), "--set", f"run={project}/stopped"])


@pytest.mark.parametrize("habit", ["its own configuration", "a relative name with a slash and other threads"])
def test_a_moved_search_goes_on_and_ends_as_if_it_had_never_been_stopped(
    project: Path, moved: Path, habit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(moved.parent)
    if habit == "its own configuration":
        search.main(["--config", "moved/config.yaml", "--resume"])
    else:
        monkeypatch.setattr(
            "quantnas_ext.threads.set_threads", lambda threads: None
        )  # two threads on busy cores take their time
        changes = ["run=./moved/", "search.threads=2", "train.iterations=7", "data.workers=0", "search.top_k=2"]
        arguments = [word for change in changes for word in ("--set", change)]
        search.main(["--config", str(project / "my.yaml"), "--resume", *arguments])
        said = capsys.readouterr().out
        assert "does not depend on what differs: search.threads, search.top_k, train.iterations\n" in said
        assert load_config(moved / "config.yaml").train.iterations == 7
    histories = [json.loads((run / "history.json").read_text()) for run in (moved, project / "whole")]
    assert len(histories[0]["epochs"]) == 4 and histories[0]["labels"] == histories[1]["labels"]
    for resumed, whole in zip(*(history["epochs"][1:] for history in histories), strict=True):
        assert resumed["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)
    choices = [Architecture.load(run / "architecture.yaml").choices for run in (moved, project / "whole")]
    assert choices[0] == choices[1]
    assert not (moved.parent / "stopped").exists()


def test_what_changes_the_search_is_refused_with_both_values_and_nothing_is_touched(project: Path, moved: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*")}
    changes = ["seed=1", "search.entropy=0.5", "space.arguments.width=9", "data.patch=10", "train.iterations=9"]
    arguments = [word for change in [f"run={moved}", *changes] for word in ("--set", change)]
    with pytest.raises(InputError) as caught:
        search.main(["--config", str(project / "my.yaml"), "--resume", *arguments])
    sentence = str(caught.value)
    for part in (
        "'data.patch' is 12 there and 10 here",
        "'search.entropy' is 0.001 there and 0.5 here",
        "'seed' is 0 there and 1 here",
        "'space.arguments.width' is 6 there and 9 here",
    ):
        assert part in sentence
    assert "train.iterations" not in sentence
    assert {path: path.stat().st_mtime_ns for path in moved.rglob("*")} == before


def test_images_and_files_are_compared_by_what_they_are(project: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    mine = load_config(project / "my.yaml", [f"search.operations={project}/whole/architecture.yaml"])
    save_config(mine, tmp_path / "run" / "config.yaml")
    copied = Path(shutil.copytree(project / "data", tmp_path / "copied"))
    shutil.copy(project / "whole" / "architecture.yaml", tmp_path / "same.yaml")
    same = load_config(project / "my.yaml", [f"data.train=[{copied}/]", f"search.operations={tmp_path}/same.yaml"])
    check_same_run(RunFolder(tmp_path / "run"), same)
    (copied / "HR" / "a.png").write_bytes(b"other")
    with pytest.raises(InputError, match="'data.train' is"):
        check_same_run(RunFolder(tmp_path / "run"), same)
    (tmp_path / "same.yaml").write_text("another architecture")
    with pytest.raises(InputError, match="'search.operations' is"):
        check_same_run(
            RunFolder(tmp_path / "run"), load_config(project / "my.yaml", [f"search.operations={tmp_path}/same.yaml"])
        )


def test_arguments_of_a_space_that_equal_its_defaults_are_no_difference(project: Path, tmp_path: Path) -> None:
    save_config(load_config(project / "my.yaml"), tmp_path / "config.yaml")
    check_same_run(RunFolder(tmp_path), load_config(project / "my.yaml", ["space.arguments.share_cells=true"]))
    with pytest.raises(InputError, match="'space.arguments.share_cells' is True there and False here"):
        check_same_run(RunFolder(tmp_path), load_config(project / "my.yaml", ["space.arguments.share_cells=false"]))


def test_a_training_is_compared_by_what_it_depends_on(project: Path, tmp_path: Path) -> None:
    config = load_config(project / "my.yaml", ["data.photographs=photos", "data.train=[]"])
    prepared = dataclasses.replace(config.data, train=["photos/trainx2"])  # as recipes/train.py saves it
    config = dataclasses.replace(config, data=prepared)
    save_config(config, tmp_path / "config.yaml")
    others = ["search.entropy=0.5", "train.validate_every=9", "data.patch=10", "data.photographs=/elsewhere"]
    check_same_run(TrainingFolder(tmp_path), load_config(project / "my.yaml", [*others, "data.train=[]"]))
    with pytest.raises(InputError, match="'train.iterations' is 4 there and 5 here"):
        changes = ["data.photographs=photos", "data.train=[]", "train.iterations=5"]
        check_same_run(TrainingFolder(tmp_path), load_config(project / "my.yaml", changes))


def test_the_demo_goes_on_with_a_moved_run_and_refuses_a_training_of_another_length(
    project: Path, moved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("search", "train", "evaluate"):
        monkeypatch.setattr(demo, stage, lambda *_: None)
    monkeypatch.chdir(moved.parent)
    arguments = ["--config", str(project / "my.yaml"), "--set", f"data.test={{own: {project}/images}}"]
    demo.main([*arguments, "--set", "run=moved/", "--set", "train.iterations=8"])
    (moved / "quantized").mkdir()
    (moved / "quantized" / "options.yml").write_text("{}")
    save_config(load_config(project / "my.yaml"), moved / "quantized" / "config.yaml")
    demo.main([*arguments, "--set", f"run={moved}", "--set", "search.threads=2"])
    with pytest.raises(InputError, match="quantized' holds a training .*'train.iterations' is 4 there and 8 here"):
        demo.main([*arguments, "--set", f"run={moved}", "--set", "train.iterations=8"])


def test_an_image_that_bicubic_restores_without_error_is_infinite_in_tables_and_null_in_json(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(tmp_path / "flat" / "grey.png")
    shutil.copy(project / "images" / "a.png", tmp_path / "flat" / "other.png")
    architecture = project / "whole" / "architecture.yaml"
    for training in ("quantized", "full_precision"):
        (tmp_path / training).mkdir()
        shutil.copy(architecture, tmp_path / training)
        torch.manual_seed(0)
        network = Architecture.load(architecture).build()
        network(torch.rand(1, 3, 16, 16))
        save_weights(network.state_dict(), tmp_path / training / "network.safetensors")
    demo.evaluate(load_config(project / "my.yaml", [f"data.test={{flat: {tmp_path}/flat}}"]), RunFolder(tmp_path))
    assert "∞" in capsys.readouterr().out

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    written = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=no_constant)
    assert written["bicubic"]["psnr"] is None and written["bicubic"]["ssim"] > 0.5
    assert (tmp_path / "comparison.png").is_file()
    weights = ["--weights", str(tmp_path / "quantized" / "network.safetensors")]
    data = ["--data", f"flat={tmp_path}/flat", "--out", str(tmp_path / "scores.json")]
    evaluate.main(["--architecture", str(architecture), *weights, *data])
    assert "∞" in capsys.readouterr().out
    scores = json.loads((tmp_path / "scores.json").read_text(), parse_constant=no_constant)["datasets"]["flat"]
    assert scores["bicubic"]["mean"]["psnr"] is None and scores["bicubic"]["images"]["grey.png"]["psnr"] is None
    assert scores["bicubic"]["images"]["other.png"]["psnr"] > 10 and scores["network"]["mean"]["psnr"] > 0


def test_a_history_with_undefined_numbers_stays_json(tmp_path: Path) -> None:
    from quantnas_ext.distribution.choices import ChoiceTree
    from quantnas_ext.search.loop.epoch_record import EpochRecord
    from quantnas_ext.spaces import build_space

    tree = ChoiceTree.of(build_space(CONFIG["space"]["name"], CONFIG["space"]["arguments"]))
    history = SearchHistory(tmp_path / "history.json", tree)
    history.add(
        EpochRecord(
            epoch=0,
            step=0,
            probabilities={},
            train_loss=float("inf"),
            val_loss=float("nan"),
            settled_loss=None,
            expected_costs={"bitops": 1.0},
            multipliers={},
            entropy=1.0,
            entropy_weight=0.0,
        )
    )
    (epoch,) = json.loads((tmp_path / "history.json").read_text())["epochs"]
    assert epoch["train_loss"] is None and epoch["val_loss"] is None and epoch["expected_bitops"] == 1.0
