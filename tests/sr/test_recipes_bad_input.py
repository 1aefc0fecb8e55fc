"""Bad input of the super-resolution recipes: one sentence, exit code 2, nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from quantnas_ext.errors import InputError


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search_folder: Path, hr_folder: Path, dataset_folder: Path
) -> Path:
    """A working directory with what the recipes need, and with what they should refuse."""
    for source, name in ((search_folder, "search"), (hr_folder, "images"), (dataset_folder, "data")):
        shutil.copytree(source, tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "image.png").write_text("not an image")
    shutil.copytree(dataset_folder, tmp_path / "cut")
    for side, name in (("HR", "coffee_s001.png"), ("LRx2", "coffee_s001.png")):
        with Image.open(tmp_path / "cut" / side / name) as image:
            image.save(tmp_path / "cut" / side / "short.jpg")
    short = tmp_path / "cut" / "LRx2" / "short.jpg"
    short.write_bytes(short.read_bytes()[:-200])
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "search" / "other.safetensors").write_text("no weights")
    architecture = (tmp_path / "search" / "architecture.yaml").read_text()
    (tmp_path / "search" / "altered.yaml").write_text(architecture.replace("head_0: conv_3x3", "head_0: conv3x3"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRAIN = "--architecture search/architecture.yaml --run new/run --set data.train=[data] --set train.patch=16"
NETWORK = "--architecture search/architecture.yaml --weights search/weights.safetensors"

CASES = {
    "prepare_data": {
        "absent new/data --scale 2": "image folder 'absent' does not exist",
        "empty new/data --scale 2": "image folder 'empty' holds no images",
        "broken new/data --scale 2": "broken/image.png' cannot be read",
        "images new/data --scale 7": "scale 7 is not possible; use one of 2, 3, 4",
        "images data --scale 2": "dataset folder 'data' already exists",
    },
    "train": {
        f"{TRAIN} --run data": "run folder 'data' already holds a run",
        f"{TRAIN} --architecture absent.yaml": "absent.yaml' does not exist",
        f"{TRAIN} --architecture search/altered.yaml": "did you mean 'conv_3x3'",
        f"{TRAIN} --architecture images/coffee.png": "is not an architecture file",
        f"{TRAIN} --weights search/other.safetensors": "no readable safetensors file",
        f"{TRAIN} --set train.iteration=3": "did you mean 'train.iterations'",
        f"{TRAIN} --set train.precision=1": "precision",
        f"{TRAIN} --set data.train=[]": "there is nothing to train on",
        f"{TRAIN} --set data.train=[images]": "dataset folder 'images' has no folder HR",
        f"{TRAIN} --set train.patch=40": "smaller than the patch of 40",
        f"{TRAIN} --set data.test={{own:absent}}": "data.test",
        f"{TRAIN} --set data.test.own=absent": "image folder 'absent' does not exist",
        f"{TRAIN} --set data.train=[data,cut]": "short.jpg' cannot be read",
        f"{TRAIN} --set data.test.own=cut/LRx2": "short.jpg' cannot be read",
        f"{TRAIN} --set data.lr_folder=X2": "has no folder X2",
        f"{TRAIN} --set data.train=[images] --set data.hr_folder=/absent": "has no folder /absent",
        f"{TRAIN} --set train.full_precision_iterations=1000": "leaves none of",
        f"{TRAIN} --set train.from_supernet=true --architecture moved.yaml": "weights.safetensors' do not exist",
    },
    "evaluate": {
        f"{NETWORK} --data images": "write NAME=DIR",
        f"{NETWORK} --data a=images --data a=images": "with a new name",
        f"{NETWORK} --data a=images --data b=empty --out new.json": "image folder 'empty' holds no images",
        f"{NETWORK} --data a=broken --out new.json": "broken/image.png' cannot be read",
        f"{NETWORK} --data a=images --data b=cut/LRx2 --out new.json": "short.jpg' cannot be read",
        f"{NETWORK} --data a=images --out metrics.json": "'metrics.json' already exists",
        f"{NETWORK} --data a=images --out new/metrics.json": "folder 'new' does not exist",
        f"{NETWORK} --weights search/architecture.yaml --data a=images": "no readable safetensors file",
    },
    "upscale": {
        f"{NETWORK} absent.png --out new": "image 'absent.png' does not exist",
        f"{NETWORK} images broken --out new": "broken/image.png' cannot be read",
        f"{NETWORK} empty --out new": "holds no images",
        f"{NETWORK} images images/coffee.png --out new": "rename one",
        f"{NETWORK} images --out images": "images/astronaut.png' already exists",
        f"{NETWORK} images --out metrics.json": "cannot be made",
    },
}


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [(name, arguments, reason) for name, cases in CASES.items() for arguments, reason in cases.items()],
)
def test_bad_input_is_named_and_leaves_nothing_behind(
    place: Path, recipe: Callable[[str], Callable[[list[str]], None]], name: str, arguments: str, reason: str
) -> None:
    if "moved.yaml" in arguments:
        shutil.copy("search/architecture.yaml", "moved.yaml")
    before = sorted(place.rglob("*"))
    with pytest.raises(InputError) as caught:
        recipe(name)(arguments.split())
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "arguments"), [("prepare_data", "empty new/data --scale 2"), ("train", f"{TRAIN} --set train.patch=40")]
)
def test_a_recipe_ends_with_exit_code_2_and_one_sentence(
    place: Path, environment: dict[str, str], name: str, arguments: str
) -> None:
    script = Path(environment["PYTHONPATH"], "recipes", f"{name}.py")
    command = [sys.executable, str(script), *arguments.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and not (place / "new").exists()
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
