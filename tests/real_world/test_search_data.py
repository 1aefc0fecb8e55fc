"""Collections as people have them, split for a search, or with test images among the training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from quantnas_ext import notices
from quantnas_ext.sr.data.degradation import crop_to_multiple, downscale
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.images import write_png
from quantnas_ext.sr.data.patches import PatchDataset, split_dataset
from quantnas_ext.sr.training import seen_images
from quantnas_ext.sr.training.seen_images import note_seen_images


@pytest.fixture(autouse=True)
def every_notice_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_said", set())


def pair(folder: Path, name: str, image: np.ndarray) -> None:
    """One image pair of a dataset folder that is made by hand."""
    for part, picture in (("HR", image), ("LRx2", downscale(image, 2))):
        (folder / part).mkdir(parents=True, exist_ok=True)
        write_png(folder / part / f"{name}.png", picture)


def test_random_crops_saved_under_running_numbers_stay_with_their_photograph(tmp_path: Path) -> None:
    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    random = np.random.default_rng(0)
    shown = []
    for number in range(60):
        which = number % len(photographs)
        top, left = (int(random.integers(0, side - 96)) for side in (200, 240))
        pair(tmp_path / "data", f"{number:06d}", photographs[which][top : top + 96, left : left + 96])
        shown.append(which)
    for seed in range(3):
        parts = split_dataset(PatchDataset([tmp_path / "data"], 2, 24), 0.5, seed)
        first, second = ({shown[index] for index in part.images} for part in parts)
        assert not first & second and first | second == {0, 1, 2, 3}


def test_photographs_of_one_size_in_a_plain_folder_are_each_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = {"IMG_0001": data.astronaut(), "IMG_0002": data.coffee(), "IMG_0003": data.chelsea()}
    for name, image in pictures.items():
        pair(tmp_path / "data", name, crop_to_multiple(image, 2)[60:200, 60:220])
    night = np.zeros((140, 160, 3), np.uint8)  # black pixels alone are nothing that two photographs share
    for number in (4, 5, 6):
        night[number * 9, number * 7] = 255
        pair(tmp_path / "data", f"IMG_000{number}", night)
    train, validation = split_dataset(PatchDataset([tmp_path / "data"], 2, 24), 0.5)
    assert len(train) == len(validation) == 3 and set(train.images) | set(validation.images) == set(range(6))
    assert not capsys.readouterr().err


@pytest.mark.parametrize("comparable", [True, False])
def test_test_images_among_the_training_images_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], comparable: bool
) -> None:
    monkeypatch.setattr(seen_images, "comparable", lambda paths: comparable)
    for name, folders in {"astronaut": ["train", "own"], "coffee": ["train"], "chelsea": ["own", "other"]}.items():
        for folder in folders:
            (tmp_path / folder).mkdir(exist_ok=True)
            write_png(tmp_path / folder / f"{name} {folder}.png", getattr(data, name)()[:150, :150])
    prepare_dataset_folder(tmp_path / "train", tmp_path / "cut", 2, crop=64, step=48)
    datasets: dict[str, dict] = {
        "train": {"type": "PairedFoldersDataset", "folders": [str(tmp_path / "cut")], "gt_size": 48, "scale": 2},
        "val_0": {"type": "WholeImagesDataset", "name": "own", "folder": str(tmp_path / "own"), "scale": 2},
        "val_1": {"type": "WholeImagesDataset", "name": "other", "folder": str(tmp_path / "other"), "scale": 2},
    }
    capsys.readouterr()
    note_seen_images({"datasets": datasets})
    said = capsys.readouterr().err
    assert "1 of 2 images of the test set 'own' ('astronaut own.png' is the first) are among the training" in said
    assert "'other'" not in said and said.count("\n") == 1
    note_seen_images({"datasets": {name: datasets[name] for name in ("train", "val_1")}})
    note_seen_images({"datasets": {"train": datasets["train"]}})
    assert not capsys.readouterr().err


def test_tiles_beside_each_other_are_dealt_out(tmp_path: Path) -> None:
    astronaut = data.astronaut()
    for row in range(4):
        for column in range(4):
            tile = astronaut[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64]
            pair(tmp_path / "data", f"face_s{4 * row + column:03d}", tile)
    patches = PatchDataset([tmp_path / "data"], 2, 24)
    train, validation = split_dataset(patches, 0.5)
    assert len(train) == len(validation) == 8 and not set(train.images) & set(validation.images)
