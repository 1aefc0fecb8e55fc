"""The two parts of a search's data have no pixel in common, whatever the images are and however they were cut.

Where it can be, that is seen from the pixels of the patches themselves: the images of these tests have their number,
row and column for colours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quantnas_ext import notices
from quantnas_ext.errors import InputError
from quantnas_ext.runs.config import DataConfig
from quantnas_ext.sr.data import mosaics
from quantnas_ext.sr.data.degradation import downscale
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.halves import GAP, split_photographs
from quantnas_ext.sr.data.images import list_images, tensor_to_image, write_png
from quantnas_ext.sr.data.origins import ORIGINS_NAME, photograph_digest
from quantnas_ext.sr.data.patches import PatchDataset, split_dataset
from quantnas_ext.sr.data.photographs import SUB_IMAGE, with_photographs

PATCH = 12
SCALE = 2


def told(number: int, height: int = 128, width: int = 160) -> np.ndarray:
    """A picture `uint8 [h, w, 3]` without two equal pixels, none of which is in the picture of another number."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, number)], axis=-1).astype(np.uint8)


def seen(part: PatchDataset, epochs: int = 60) -> dict[int, np.ndarray]:
    """By number of a picture, which of its pixels (`[256, 256]`) the patches of many epochs show."""
    found: dict[int, np.ndarray] = {}
    for epoch in range(epochs):
        part.set_epoch(epoch)
        for _, hr in (part[index] for index in range(len(part))):
            rows, columns, numbers = np.moveaxis(tensor_to_image(hr.unsqueeze(0)).astype(int), 2, 0)
            found.setdefault(int(numbers[0, 0]), np.zeros((256, 256), bool))[rows, columns] = True
    return found


def distance(first: np.ndarray, second: np.ndarray) -> int:
    """Pixels between the nearest of two sets along either axis, -1 where they overlap in both."""
    spans = [
        (np.flatnonzero(first.any(axis=axis)), np.flatnonzero(second.any(axis=axis))) for axis in (0, 1)
    ]  # both sets are rectangles here
    return max(max(a[0] - b[-1], b[0] - a[-1]) - 1 for a, b in spans)


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[[int], Path]:
    """A folder of so many pictures."""

    def write(count: int) -> Path:
        folder = tmp_path / f"pictures{count}"
        folder.mkdir()
        for number in range(count):
            write_png(folder / f"p{number}.png", told(number))
        return folder

    return write


@pytest.fixture(autouse=True)
def every_notice_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_said", set())


def as_another_tool_leaves_it(folder: Path, names: Callable[[int], str]) -> None:
    """Remove the record of a dataset folder, and give its images other names."""
    (folder / ORIGINS_NAME).unlink()
    for part in (folder / "HR", folder / f"LRx{SCALE}"):
        for number, path in enumerate(list_images(part)):
            path.rename(part / f"{names(number)}.png")


def test_no_photograph_that_is_packaged_is_in_both_parts(tmp_path: Path) -> None:
    data = with_photographs(DataConfig(photographs=str(tmp_path)), SCALE)
    patches = PatchDataset(data.train, SCALE, 24)
    names = [path.stem for path in list_images(Path(data.train[0]) / "HR")]
    # Where the sub-images lie, computed here once more; motorcycle_left is the largest of them.
    lefts, tops = ([*range(0, side - SUB_IMAGE, SUB_IMAGE * 5 // 8), side - SUB_IMAGE] for side in (740, 500))
    boxes = [(top, left) for top in tops for left in lefts]
    assert sum(name.startswith("motorcycle") for name in names) == len(boxes)
    photographs = patches.photographs()
    (largest,) = (of for of in photographs if of.name == "motorcycle_left.png")
    assert [tuple(box) for box in largest.mosaics[0].boxes.values()] == [
        (*place, SUB_IMAGE, SUB_IMAGE) for place in boxes
    ]
    found = set()
    for seed in range(20):
        parts = split_photographs(photographs, patches.regions, 0.5, seed, SCALE, 24)
        shown = [{names[index].rpartition("_s")[0] for index in part} for part in parts]
        assert not shown[0] & shown[1] and len(shown[0] | shown[1]) == 8 and min(map(len, shown)) >= 3
        assert sum(map(len, parts)) == len(patches) and 0.45 <= len(parts[1]) / len(patches) <= 0.55
        assert all(region is None for part in parts for region in part.values())
        found.add(frozenset(shown[0]))
    assert len(found) > 10
    assert [part.regions for part in split_dataset(patches, 0.5, 19)] == list(parts)


@pytest.mark.parametrize(
    ("kind", "share"),
    [("whole", 0.25), ("cut", 0.5), ("cut and not recorded", 0.25), ("renamed", 0.5), ("in two folders", 0.5)],
)
def test_a_single_photograph_is_cut_in_two_regions_with_a_gap(
    pictures: Callable[[int], Path], tmp_path: Path, kind: str, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    crop = None if kind == "whole" else 48
    folders = [prepare_dataset_folder(pictures(1), tmp_path / "data", SCALE, crop=crop, step=crop and 20)]
    if kind == "cut and not recorded":
        (folders[0] / ORIGINS_NAME).unlink()
    elif kind == "renamed":
        as_another_tool_leaves_it(folders[0], lambda number: f"tile{number * 7 % 41}")
    elif kind == "in two folders":
        folders.append(prepare_dataset_folder(tmp_path / "pictures1", tmp_path / "other", SCALE, crop=64))
    patches = PatchDataset(folders, SCALE, PATCH, seed=1)
    sides = set()
    for seed in (0, 1):
        train, validation = split_dataset(patches, share, seed)
        first, second = (seen(part, 12 if crop else 200)[0] for part in (train, validation))
        assert distance(first, second) >= GAP * SCALE
        area = 128 * 160
        assert second.sum() == pytest.approx(share * area, abs=0.12 * area)
        assert first.sum() + second.sum() >= 0.75 * area
        sides.add(bool(np.argwhere(second)[:, 1].min() < np.argwhere(first)[:, 1].min()))
        again = split_dataset(patches, share, seed)
        assert (again[0].regions, again[1].regions) == (train.regions, validation.regions)
    assert sides == {True, False}
    assert "weights and logits learn from two regions of each photograph" in capsys.readouterr().err


def test_sub_images_of_another_tool_are_recognised_by_their_pixels(
    pictures: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = prepare_dataset_folder(pictures(5), tmp_path / "data", SCALE, crop=64, step=48)
    as_another_tool_leaves_it(folder, lambda number: f"{number * 37 % 101:04d}")
    # Crops that do not lie on the grid of low-resolution pixels, and a copy under another name.
    for name, image in {"odd": told(3)[5:61, 31:95], "copy": told(4)[:64, :64]}.items():
        write_png(folder / "HR" / f"{name}.png", image)
        write_png(folder / "LRx2" / f"{name}.png", downscale(image, SCALE))
    patches = PatchDataset([folder], SCALE, PATCH)
    assert sorted(len(photograph.images) for photograph in patches.photographs()) == [9, 9, 9, 10, 10]
    for seed in range(4):
        train, validation = (seen(part, 1) for part in split_dataset(patches, 0.4, seed))
        assert not train.keys() & validation.keys() and len(train) == 3 and len(validation) == 2


def test_a_photograph_in_two_folders_is_one(pictures: Callable[[int], Path], tmp_path: Path) -> None:
    source = pictures(4)
    cut = prepare_dataset_folder(source, tmp_path / "cut", SCALE, crop=64)
    (source / "p0.png").rename(source / "other name.png")
    whole = prepare_dataset_folder(source, tmp_path / "whole", SCALE)
    patches = PatchDataset([cut, whole, cut], SCALE, PATCH)
    for seed in range(4):
        train, validation = (seen(part, 1) for part in split_dataset(patches, 0.5, seed))
        assert not train.keys() & validation.keys() and len(train) == len(validation) == 2


def test_sub_images_that_are_prepared_once_more_keep_their_photograph(
    pictures: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosaics, "MOST_PIXELS", 0)
    cut = prepare_dataset_folder(pictures(4), tmp_path / "cut", SCALE, crop=64, step=32)
    again = prepare_dataset_folder(cut / "HR", tmp_path / "again", SCALE)
    train, validation = (seen(part, 1) for part in split_dataset(PatchDataset([again], SCALE, PATCH), 0.5))
    assert not train.keys() & validation.keys() and len(train) == len(validation) == 2


def test_images_too_many_to_compare_are_told_by_their_names(
    pictures: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(mosaics, "MOST_PIXELS", 0)
    folder = prepare_dataset_folder(pictures(4), tmp_path / "data", SCALE, crop=64, step=32)
    (folder / ORIGINS_NAME).unlink()
    patches = PatchDataset([folder], SCALE, PATCH)
    capsys.readouterr()
    for part in split_dataset(patches, 0.5):
        assert len(seen(part, 1)) == 2 and len(part) == len(patches) // 2
    assert not capsys.readouterr().err
    one = patches.part(range(len(patches) // 4))
    with pytest.raises(InputError, match="'p0_s001' is the only photograph to search on, and cannot be split"):
        split_dataset(one, 0.5)
    for path in [*list_images(folder / "HR"), *list_images(folder / "LRx2")]:
        path.rename(path.with_name(path.name.replace("_s", "-")))
    split_dataset(PatchDataset([folder], SCALE, PATCH), 0.5)
    error = capsys.readouterr().err
    assert f"{len(patches)} of {len(patches)} training images ('p0-001.png' is the first)" in error
    assert "too many to compare" in error and error.count("\n") == 1


def test_what_is_too_small_to_be_cut_is_refused_or_stays_whole(pictures: Callable[[int], Path], tmp_path: Path) -> None:
    patch = (160 // SCALE - GAP) // 2
    whole = prepare_dataset_folder(pictures(2), tmp_path / "whole", SCALE)
    fits = PatchDataset([whole], SCALE, patch)
    assert [region.width for region in split_dataset(fits.part([0]), 0.5)[0].regions.values() if region] == [patch]
    too_large = PatchDataset([whole], SCALE, patch + 1)
    with pytest.raises(InputError, match=f"'p0.png' is the only .*patches of {patch + 1} it would have to be 82 low"):
        split_dataset(too_large.part([0]), 0.5)
    train, validation = split_dataset(too_large, 0.5)
    assert sorted(train.images + validation.images) == [0, 1] and len(train) == 1


def test_a_part_can_be_split_again(pictures: Callable[[int], Path], tmp_path: Path) -> None:
    folder = prepare_dataset_folder(pictures(1), tmp_path / "data", SCALE)
    half, rest = split_dataset(PatchDataset([folder], SCALE, PATCH), 0.5)
    masks = [seen(part, 200)[0] for part in (*split_dataset(half, 0.5, seed=3), rest)]
    assert all(mask.any() for mask in masks)
    assert not (masks[0] & masks[1]).any() and not (masks[0] & masks[2]).any() and not (masks[1] & masks[2]).any()


def test_a_pattern_that_fits_itself_in_many_places_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pattern = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    write_png(tmp_path / "images" / "pattern.png", np.tile(pattern, (4, 5, 1)))
    folder = prepare_dataset_folder(tmp_path / "images", tmp_path / "data", SCALE, crop=64, step=40)
    as_another_tool_leaves_it(folder, str)
    with pytest.raises(InputError, match="cannot be split"):
        split_dataset(PatchDataset([folder], SCALE, PATCH), 0.5)


def test_images_without_a_window_to_look_up_are_photographs_of_their_own(tmp_path: Path) -> None:
    for part, side in (("HR", 10), ("LRx2", 5)):
        (tmp_path / part).mkdir()
        for level in range(0, 250, 10):  # of one colour, whose windows may be chosen but tell nothing, or all else
            write_png(tmp_path / part / f"{level}.png", np.full((side, side, 3), level, np.uint8))
            write_png(tmp_path / part / f"n{level}.png", told(level, side, side))
    patches = PatchDataset([tmp_path], SCALE, 4)
    assert len(patches.photographs()) == len(patches) == 50


def test_the_record_says_where_every_image_was_cut_from(pictures: Callable[[int], Path], tmp_path: Path) -> None:
    folder = prepare_dataset_folder(pictures(1), tmp_path / "data", SCALE, crop=100)
    record = json.loads((folder / ORIGINS_NAME).read_text())
    assert record["photographs"] == {"p0.png": photograph_digest(told(0))}
    assert record["images"]["p0_s004"] == {"photograph": "p0.png", "box": [28, 60, 100, 100]}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda record: "{", "cannot be read as a record of photographs"),
        (lambda record: "[" * 100_000, "cannot be read as a record"),
        (lambda record: {"format": "other"}, "is no record of photographs"),
        (lambda record: {**record, "version": 2}, "has version 2, not 1"),
        (lambda record: {**record, "photographs": {}}, "the photograph of 'p0_s001' is not among photographs"),
        (lambda record: {**record, "photographs": {"p0.png": "x"}}, "should have 64 hexadecimal digits"),
        (
            lambda record: {**record, "images": {"a": {"photograph": "p0.png", "box": [0, 0, -1, 4]}}},
            "the box of 'a' should be top and left from 0",
        ),
    ],
)
def test_a_damaged_record_is_refused(
    pictures: Callable[[int], Path], tmp_path: Path, damage: Callable[[dict], object], reason: str
) -> None:
    folder = prepare_dataset_folder(pictures(1), tmp_path / "data", SCALE, crop=64)
    file = folder / ORIGINS_NAME
    content = damage(json.loads(file.read_text()))
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=reason):
        split_dataset(PatchDataset([folder], SCALE, PATCH), 0.5)


def test_an_image_that_has_been_replaced_is_not_what_the_record_says(
    pictures: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = prepare_dataset_folder(pictures(1), tmp_path / "data", SCALE, crop=64)
    for part, picture in (("HR", told(9, 80, 80)), ("LRx2", downscale(told(9, 80, 80), SCALE))):
        write_png(folder / part / "p0_s001.png", picture)
    photographs = PatchDataset([folder], SCALE, PATCH).photographs()
    assert [photograph.images for photograph in photographs] == [[0], list(range(1, 6))]
