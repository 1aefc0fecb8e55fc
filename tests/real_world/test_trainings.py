"""Trainings as people start, stop, move and start them again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.training.final_training import train
from recipes import train as train_recipe

BLOCKS = ("head_0", "head_1", "body_0", "body_1", "body_skip", "upsample_0", "tail_0", "tail_1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with data and a run folder whose training of six iterations is done, a state after every second."""
    project = tmp_path_factory.mktemp("project")
    (project / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((96, 96)).save(project / "images" / "a.png")
    prepare_dataset_folder(project / "images", project / "data", 2)
    parts = dict.fromkeys(("head", "body", "skip", "upsample", "tail"), ["conv_3x3"])
    arguments = {"scale": 2, "width": 6, "cells": 1, "adq": False, "bits": [4, 8], **parts}
    choices = dict.fromkeys(BLOCKS, "conv_3x3") | {f"{block}__conv_3x3__bits": 8 for block in BLOCKS}
    (project / "run").mkdir()
    Architecture.of("sr_basic", arguments, choices).save(project / "run" / "architecture.yaml")
    values = [f"run={project}/run", f"data.train=[{project}/data]", f"data.test={{own: {project}/images}}"]
    values += ["train.iterations=6", "train.batch_size=2", "train.patch=12"]
    values += ["train.checkpoint_every=2", "train.validate_every=6"]
    arguments = [word for value in values for word in ("--set", value)]
    train_recipe.main(["--architecture", str(project / "run" / "architecture.yaml"), *arguments])
    return project


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """The folder of the training in a copy of the run folder, at another place."""
    return Path(shutil.copytree(trained / "run", tmp_path / "moved")) / "train"


def unfinish(folder: Path, *iterations: int) -> Path:
    """Make a training one that was stopped before the states of some iterations."""
    (folder / "network.safetensors").unlink()
    for kind, pattern in (("models", "net_g_{}.pth"), ("training_states", "{}.state")):
        for iteration in (*iterations, "latest"):
            (folder / "experiments" / "train" / kind / pattern.format(iteration)).unlink(missing_ok=True)
    return folder / "experiments" / "train"


def everything(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("num_gpu=99", "'num_gpu' is 99, but torch finds"),
        ("num_gpu=-1", "'num_gpu' must be a whole number of at least 0 or auto, not -1"),
        ("num_gpu=true", "'num_gpu' must be a whole number of at least 0 or auto, not True"),
        ("network_g:wieghts=a", "unknown option of 'network_g': 'wieghts'; did you mean 'weights'?"),
        ("datasets:train:folders=[absent]", "dataset folder 'absent' does not exist"),
        ("datasets:train:folders=absent", "'datasets:train:folders' must be a list of folders, not 'absent'"),
        ("datasets:train:batch_size_per_gpu=2.5", "must be a whole number of at least 1, not 2.5"),
        ("datasets:train:gt_size=none", "the options of datasets cannot be trained with (TypeError"),
        (
            "datasets:train:prefetch_mode=gpu",
            "'datasets:train:prefetch_mode' must be cpu, or cuda",
        ),
        ("train:total_iter=0", "'train:total_iter' must be a whole number of at least 1, not 0"),
        ("train:full_precision_iters=2", "did you mean 'full_precision_iter'"),
        ("train=5", "'train:total_iter'"),
        ("logger:print_freq=0", "'logger:print_freq' must be a whole number of at least 1, not 0"),
        ("logger:save_checkpoint_freq=often", "must be a whole number of at least 1, not 'often'"),
        ("val:val_freq=0", "'val:val_freq' must be a whole number of at least 1, not 0"),
        ("val:metrics:psnr:type=psnr", "unknown type of 'val:metrics:psnr': 'psnr'"),
        ("train:optim_g:lr=fast", "cannot be trained with (TypeError"),
        ("train:optim_g:learning_rate=1", "unknown option of 'train:optim_g': 'learning_rate'"),
        ("train:optim_g:type=Adamw", "unknown type of 'train:optim_g': 'Adamw'"),
        ("train:scheduler:type=Cosine", "unknown type of 'train:scheduler': 'Cosine'"),
        ("train:pixel_opt:type=L1", "unknown type of 'train:pixel_opt': 'L1'"),
        ("path:pretrain_network_g=absent.pth", "'path:pretrain_network_g' names 'absent.pth', which does not exist"),
        ("name=..", "'name' must be a plain name"),
        ("name=2024-05-01", "'name' must be text in quotes"),
        ("manual_seed=now", "'manual_seed' must be a whole number"),
    ],
)
def test_options_that_cannot_work_are_refused_before_an_unfinished_training_is_moved_away(
    folder: Path, override: str, sentence: str
) -> None:
    unfinish(folder, 6)
    before = everything(folder)
    with pytest.raises(InputError) as caught:
        train(["-opt", str(folder / "options.yml"), "--auto_resume", "--force_yml", override], quiet=True)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert everything(folder) == before


def test_a_missing_dataroot_of_a_basicsr_dataset_is_refused_before_anything_is_made(folder: Path) -> None:
    options = yaml.safe_load((folder / "options.yml").read_text())
    options["datasets"]["train"] |= {"type": "PairedImageDataset", "dataroot_gt": "nowhere", "dataroot_lq": "nowhere"}
    new = folder.parent / "new"
    new.mkdir()
    (new / "options.yml").write_text(yaml.safe_dump(options))
    with pytest.raises(InputError, match="'datasets:train:dataroot_gt' names 'nowhere', which does not exist"):
        train(["-opt", str(new / "options.yml")], quiet=True)
    assert [path.name for path in new.iterdir()] == ["options.yml"]


def test_numbers_as_basicsr_s_own_files_have_them_are_taken(folder: Path) -> None:
    options = yaml.safe_load((folder / "options.yml").read_text())
    unfinish(folder, 6)
    options["train"]["optim_g"]["lr"], options["logger"]["save_checkpoint_freq"] = "1e-4", 2.0
    text = yaml.safe_dump(options).replace("print_freq: 100", "print_freq: !!float 1e2")
    (folder / "options.yml").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert train(["-opt", str(folder / "options.yml"), "--auto_resume"], quiet=True).is_file()


@pytest.mark.parametrize("damaged", ["6.state", "net_g_6.pth"])
@pytest.mark.parametrize("how", ["missing", "empty", "cut"])
def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_taken_with_a_warning(
    folder: Path, damaged: str, how: str
) -> None:
    experiment = unfinish(folder)
    file = experiment / ("training_states" if damaged.endswith("state") else "models") / damaged
    content = file.read_bytes()
    file.unlink() if how == "missing" else file.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    train(["-opt", str(folder / "options.yml"), "--auto_resume"], quiet=True)
    log = (folder / "train.log").read_text()
    assert "Resuming training from epoch: 0, iter: 4." in log
    warned = log.count(damaged) and "the state before it is taken" in log
    assert warned or (damaged == "6.state" and how == "missing")
    assert (folder / "network.safetensors").is_file() and not list(folder.rglob("*_archived_*"))


def test_where_no_state_is_whole_nothing_is_thrown_away(folder: Path) -> None:
    experiment = unfinish(folder)
    for state in (experiment / "training_states").iterdir():
        state.write_bytes(b"")
    before = {path for path in folder.rglob("*")}
    with pytest.raises(InputError, match="none of the 3 training states in .* is whole"):
        train(["-opt", str(folder / "options.yml"), "--auto_resume"], quiet=True)
    assert {path for path in folder.rglob("*")} == before


def test_a_forgotten_auto_resume_neither_overwrites_nor_archives(folder: Path) -> None:
    before = everything(folder)
    with pytest.raises(InputError, match="holds a finished network .* add --auto_resume .*--auto_resume"):
        train(["-opt", str(folder / "options.yml")], quiet=True)
    with pytest.raises(InputError, match="holds a finished network"):
        train(["-opt", str(folder / "options.yml"), "--debug"], quiet=True)
    assert everything(folder) == before
    unfinish(folder, 6)
    before = everything(folder)
    with pytest.raises(InputError, match=r"unfinished training \(2 states\); to go on, add --auto_resume"):
        train(["-opt", str(folder / "options.yml")], quiet=True)
    assert everything(folder) == before


def test_the_recipe_names_the_way_on_where_a_training_was_begun(folder: Path) -> None:
    architecture = ["--architecture", str(folder / "architecture.yaml")]
    given = [*architecture, "--config", str(folder / "config.yaml"), "--run", str(folder)]
    with pytest.raises(InputError, match=r"goes on with: python -m quantnas_ext\.sr\.train -opt .*options\.yml --auto"):
        train_recipe.main(given)


def test_a_moved_run_folder_goes_on_at_its_new_place(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Path(shutil.copytree(trained, tmp_path / "elsewhere"))
    (moved / "run").rename(moved / "renamed")
    unfinish(moved / "renamed" / "train", 6)
    trained.rename(trained.with_name("gone"))  # nothing is left where the options file was written
    try:
        monkeypatch.chdir(tmp_path)
        options = (moved / "renamed" / "train" / "options.yml").read_text()
        assert "architecture: architecture.yaml\n" in options
        weights = train(["-opt", os.path.relpath(moved / "renamed/train/options.yml"), "--auto_resume"], quiet=True)
        assert weights == moved / "renamed" / "train" / "network.safetensors" and weights.is_file()
    finally:
        trained.with_name("gone").rename(trained)


def test_an_options_file_of_absolute_paths_still_loads(folder: Path) -> None:
    options = yaml.safe_load((folder / "options.yml").read_text())
    del options["written_in"]
    options["network_g"]["architecture"] = str(folder / "architecture.yaml")
    (folder / "options.yml").write_text(yaml.safe_dump(options))
    unfinish(folder, 6)
    assert train(["-opt", str(folder / "options.yml"), "--auto_resume"], quiet=True).is_file()
