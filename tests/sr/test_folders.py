from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.dataset_layout import dataset_pairs
from quantnas_ext.sr.data.degradation import crop_to_multiple, downscale
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.images import list_images, read_image, write_png


def test_whole_images_are_cropped_to_the_scale_and_reduced(
    hr_folder: Path, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    folder = prepare_dataset_folder(hr_folder, tmp_path / "data", 4)
    assert len(dataset_pairs(folder, 4, patch=30)) == 3
    for name, image in photographs.items():
        high = crop_to_multiple(image, 4)
        assert np.array_equal(read_image(folder / "HR" / f"{name}.png"), high)
        assert np.array_equal(read_image(folder / "LRx4" / f"{name}.png"), downscale(high, 4))


def test_sub_images_cover_the_image_and_are_cut_after_the_reduction(
    hr_folder: Path, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    folder = prepare_dataset_folder(hr_folder, tmp_path / "data", 3, crop=60, step=48)
    image = crop_to_multiple(photographs["astronaut"], 3)  # 150 x 150
    small = downscale(image, 3)
    boxes = [(top, left) for top in (0, 48, 90) for left in (0, 48, 90)]
    for number, (top, left) in enumerate(boxes, start=1):
        high = read_image(folder / "HR" / f"astronaut_s{number:03d}.png")
        low = read_image(folder / "LRx3" / f"astronaut_s{number:03d}.png")
        assert np.array_equal(high, image[top : top + 60, left : left + 60])
        assert np.array_equal(low, small[top // 3 : top // 3 + 20, left // 3 : left // 3 + 20])
    assert sum(path.name.startswith("astronaut") for path in list_images(folder / "HR")) == len(boxes)


def test_images_smaller_than_the_crop_stay_whole(tmp_path: Path) -> None:
    write_png(tmp_path / "narrow.png", np.zeros((100, 30, 3), np.uint8))
    folder = prepare_dataset_folder(tmp_path, tmp_path / "data", 2, crop=64, step=64)
    shapes = [read_image(path).shape for path in list_images(folder / "HR")]
    assert shapes == [(64, 30, 3), (64, 30, 3)]


def test_failed_preparation_leaves_nothing_behind(hr_folder: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(hr_folder, tmp_path / "images"))
    (images / "damaged.png").write_bytes((images / "coffee.png").read_bytes()[:2000])
    with pytest.raises(InputError, match="damaged.png' cannot be read"):
        prepare_dataset_folder(images, tmp_path / "new" / "data", 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"scale": 5}, "scale 5 is not supported"),
        ({"crop": 33}, "crop 33 is not possible; give a multiple of scale 2"),
        ({"crop": 32, "step": 0}, "step 0 is not possible"),
        ({"step": 32}, "without a crop"),
        ({"source": "absent"}, "absent' does not exist"),
        ({"target": "."}, "already exists"),
        ({"target": "file/data"}, "cannot be written"),
    ],
)
def test_impossible_preparations_are_refused(
    hr_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(InputError, match=reason):
        prepare_dataset_folder(**{"source": hr_folder, "target": "data", "scale": 2, **arguments})
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_images_of_one_name_are_refused(hr_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(hr_folder, tmp_path / "images")
    shutil.copy(hr_folder / "coffee.png", tmp_path / "images" / "coffee.jpg")
    with pytest.raises(InputError, match=r"'coffee.jpg' and 'coffee.png' in .* share a name"):
        prepare_dataset_folder(tmp_path / "images", tmp_path / "data", 2)


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / name)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist"),
        (_remove("LRx2"), "has no folder LRx2; make it with recipes/prepare_data.py --scale 2"),
        (_remove("HR"), "has no folder HR"),
        (lambda folder: (folder / "LRx2" / "coffee.png").unlink(), "3 and 2 images, 'coffee.png' is in one only"),
        (lambda folder: (folder / "HR" / "coffee.png").write_text("no"), "coffee.png' cannot be read"),
        (
            lambda folder: write_png(folder / "LRx2" / "coffee.png", np.zeros((60, 64, 3), np.uint8)),
            "coffee.png' is 130x120 and .* 64x60 pixels; the first must be exactly 2 times the second",
        ),
        (
            lambda folder: [
                write_png(folder / "LRx2" / "coffee.png", np.zeros((40, 31, 3), np.uint8)),
                write_png(folder / "HR" / "coffee.png", np.zeros((80, 62, 3), np.uint8)),
            ],
            "coffee.png' of 31x40 pixels is smaller than the patch of 32",
        ),
    ],
)
def test_dataset_folders_that_cannot_be_trained_on_are_refused(
    hr_folder: Path, tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    folder = prepare_dataset_folder(hr_folder, tmp_path / "data", 2)
    assert len(dataset_pairs(folder, 2, patch=32)) == 3
    damage(folder)
    with pytest.raises(InputError, match=reason):
        len(dataset_pairs(folder, 2, patch=32))
