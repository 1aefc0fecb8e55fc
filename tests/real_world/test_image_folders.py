"""Folders of images as people keep them, and data sets as they are unpacked."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from quantnas_ext.errors import InputError
from quantnas_ext.runs.config import DataConfig
from quantnas_ext.sr.data import decoding
from quantnas_ext.sr.data.dataset_layout import DatasetLayout, dataset_pairs
from quantnas_ext.sr.data.degradation import downscale
from quantnas_ext.sr.data.evaluation_pairs import EvaluationPairs
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.images import list_images, read_image
from quantnas_ext.sr.data.patches import PatchDataset
from quantnas_ext.sr.training.basicsr_datasets import PairedFoldersDataset, WholeImagesDataset


def photo(seed: int, height: int = 96, width: int = 104) -> np.ndarray:
    """A smooth picture of its own for every seed, `uint8 [height, width, 3]`."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@pytest.fixture
def div2k(tmp_path: Path) -> Path:
    """Four images as DIV2K is unpacked, at x4; the last one is of 40 pixels only."""
    root = tmp_path / "DIV2K"
    for number, side in enumerate((96, 100, 96, 40), start=1):
        high = photo(number, side, 104)
        write(root / "DIV2K_train_HR" / f"{number:04d}.png", high)
        write(root / "DIV2K_train_LR_bicubic" / "X4" / f"{number:04d}x4.png", downscale(high, 4))
    return root


DIV2K = DataConfig(
    hr_folder="DIV2K_train_HR", lr_folder="DIV2K_train_LR_bicubic/X{scale}", lr_suffix="x{scale}", skip_small=True
)


@pytest.fixture
def large_sets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every set counts as a large one."""
    monkeypatch.setattr(decoding, "AT_ONCE", 0)
    yield
    decoding._running.clear()


def test_every_format_counts_and_what_is_left_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a.webp", "b.gif", "c.jp2", "d.ppm", "e.jfif", "f.TIFF", "g.bmp", "h.JPG", "i.png"]
    names += ["j.avif"] if features.check("avif") else []
    for name in names:
        write(tmp_path / name, photo(0))
    (tmp_path / ".DS_Store").touch()
    for name in ("Thumbs.db", "notes.txt", "clip.mov"):
        (tmp_path / name).touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "absent.png")
    write(tmp_path / "more" / "k.png", photo(0))
    assert [path.name for path in list_images(tmp_path)] == names
    assert list_images(tmp_path) == list_images(tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"note: left out in '{tmp_path}', not images that can be read: Thumbs.db, clip.mov, gone.png, notes.txt",
        f"note: left out in '{tmp_path}', subfolders: more",
    ]
    folder = prepare_dataset_folder(tmp_path, tmp_path / "data", 2)
    assert len(dataset_pairs(folder, 2)) == len(names)
    assert len(EvaluationPairs(tmp_path, 2)) == len(names)


def test_photographs_sorted_into_subfolders_are_found_on_request(tmp_path: Path) -> None:
    source = tmp_path / "photographs"
    for name in ("2023/a.png", "2024/may/a.png", "b.png"):
        write(source / name, photo(1))
    (source / "2024" / "back").symlink_to(source)
    assert [path.relative_to(source).as_posix() for path in list_images(source, nested=True)] == [
        "2023/a.png",
        "2024/may/a.png",
        "b.png",
    ]
    folder = prepare_dataset_folder(source, tmp_path / "data", 2, nested=True)
    assert [path.name for path in list_images(folder / "HR")] == ["2023_a.png", "2024_may_a.png", "b.png"]
    pairs = EvaluationPairs(source, 2, nested=True)
    assert [pairs[index].name for index in range(3)] == ["2023/a.png", "2024/may/a.png", "b.png"]
    assert len(WholeImagesDataset({"folder": str(source), "scale": 2, "nested": True})) == 3
    with pytest.raises(InputError, match="holds no images; .* need the option 'nested'"):
        list_images(source / "2024")
    shutil.copytree(folder / "HR", folder / "HR" / "inner")
    shutil.copytree(folder / "LRx2", folder / "LRx2" / "inner")
    assert len(dataset_pairs(folder, 2)) == 3
    assert len(dataset_pairs(folder, 2, layout=DatasetLayout(nested=True))) == 6


def test_div2k_is_used_as_it_is_unpacked(div2k: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patches = PatchDataset([div2k], 4, 16, layout=DatasetLayout.of(DIV2K), skip_small=True)
    assert len(patches) == 3
    for lr, hr in (patches[index] for index in range(3)):
        assert lr.shape == (3, 16, 16) and hr.shape == (3, 64, 64)
        inner = downscale((hr * 255).round().byte().permute(1, 2, 0).numpy(), 4)[2:-2, 2:-2].astype(int)
        assert np.abs(inner - (lr * 255).round().int().permute(1, 2, 0).numpy()[2:-2, 2:-2]).max() <= 1
    options = {"folders": [str(div2k)], "scale": 4, "gt_size": 64, "skip_small": True}
    options["layout"] = {"hr": DIV2K.hr_folder, "lr": DIV2K.lr_folder, "lr_suffix": DIV2K.lr_suffix}
    assert len(PairedFoldersDataset(options)) == 3
    with pytest.raises(InputError, match="did you mean 'datasets:train:layout.lr_suffix'"):
        PairedFoldersDataset({**options, "layout": {"lr_sufix": "x4"}})
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note")]
    assert said == [
        f"note: left out in '{div2k}', smaller than the patch of 16 pixels: 1 of 4 images (data.skip_small)"
    ]


def test_what_div2k_needs_is_said(div2k: Path) -> None:
    layout = DatasetLayout(DIV2K.hr_folder, DIV2K.lr_folder)
    with pytest.raises(InputError, match="no folder HR; .* or name another one in data.hr_folder"):
        dataset_pairs(div2k, 4)
    with pytest.raises(InputError, match="'0001.png' is in one only; .*matched with data.lr_suffix=x4"):
        dataset_pairs(div2k, 4, layout=layout)
    with pytest.raises(InputError, match="no folder DIV2K_train_LR_bicubic/X2; .* or name another one in data.lr_fold"):
        dataset_pairs(div2k, 2, layout=layout)
    small = "0004x4.png' of 26x10 pixels is smaller than the patch of 16; .* leave out all .* data.skip_small=true"
    with pytest.raises(InputError, match=small):
        dataset_pairs(div2k, 4, 16, layout=DatasetLayout.of(DIV2K))
    with pytest.raises(InputError, match="all images of .* are smaller than the patch of 30"):
        dataset_pairs(div2k, 4, 30, layout=DatasetLayout.of(DIV2K), skip_small=True)


def test_a_set_made_here_stands_beside_div2k(div2k: Path, tmp_path: Path) -> None:
    made = prepare_dataset_folder(div2k / "DIV2K_train_HR", tmp_path / "made", 4, crop=64)
    patches = PatchDataset([div2k, made], 4, 16, layout=DatasetLayout.of(DIV2K), skip_small=True)
    assert len(patches) == 3 + len(dataset_pairs(made, 4, 16, skip_small=True))


def test_crops_are_those_of_basicsr_bit_for_bit(tmp_path: Path) -> None:
    from basicsr.data.paired_image_dataset import PairedImageDataset

    for number in range(3):
        write(tmp_path / "source" / f"{number}.png", photo(number))
    folder = prepare_dataset_folder(tmp_path / "source", tmp_path / "data", 2)
    ours = PairedFoldersDataset({"folders": [str(folder)], "scale": 2, "gt_size": 64})
    roots = {"dataroot_gt": str(folder / "HR"), "dataroot_lq": str(folder / "LRx2"), "io_backend": {"type": "disk"}}
    augmentation = {"phase": "train", "scale": 2, "gt_size": 64, "use_hflip": True, "use_rot": True}
    theirs = PairedImageDataset({**roots, **augmentation})
    theirs.paths.sort(key=lambda paths: paths["gt_path"])
    for seed in range(12):
        random.seed(seed)
        expected = theirs[seed % 3]
        random.seed(seed)
        found = ours[seed % 3]
        assert found["gt_path"] == expected["gt_path"] and found["lq_path"] == expected["lq_path"]
        assert torch.equal(found["lq"], expected["lq"]) and torch.equal(found["gt"], expected["gt"])


def test_training_reads_what_the_check_read(tmp_path: Path) -> None:
    """OpenCV ignores profiles and the orientation of PNG and drops opacity otherwise: pairs then no longer match."""
    high = photo(3, 64, 96)
    exif = Image.Exif()
    exif[0x0112] = 8
    (tmp_path / "data" / "HR").mkdir(parents=True)
    Image.fromarray(np.rot90(high, -1)).save(tmp_path / "data" / "HR" / "turned.png", exif=exif)
    write(tmp_path / "data" / "LRx2" / "turned.png", downscale(high, 2))
    assert np.array_equal(read_image(tmp_path / "data" / "HR" / "turned.png"), high)
    lr, hr = PatchDataset([tmp_path / "data"], 2, 32)[0]
    inner = downscale((hr * 255).round().byte().permute(1, 2, 0).numpy(), 2)[2:-2, 2:-2].astype(int)
    assert np.abs(inner - (lr * 255).round().int().permute(1, 2, 0).numpy()[2:-2, 2:-2]).max() <= 1


@pytest.mark.parametrize("side", ["HR", "LRx2"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_one_damaged_image_of_a_set_is_named_at_the_start(side: str, suffix: str, tmp_path: Path) -> None:
    for number in range(3):
        high = photo(number)
        write(tmp_path / "data" / "HR" / f"{number}.{suffix}", high)
        write(tmp_path / "data" / "LRx2" / f"{number}.{suffix}", downscale(high, 2))
    assert len(dataset_pairs(tmp_path / "data", 2, 16)) == 3
    cut_short(tmp_path / "data" / side / f"1.{suffix}")
    reason = f"{side}/1.{suffix}' cannot be read"
    with pytest.raises(InputError, match=reason):
        len(dataset_pairs(tmp_path / "data", 2, 16))
    with pytest.raises(InputError, match=reason):
        EvaluationPairs(tmp_path / "data" / side, 2)


def test_a_large_set_is_decoded_in_the_background_before_it_is_needed(
    tmp_path: Path, large_sets: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        write(tmp_path / "source" / f"{number:02d}.png", photo(number))
    folder = prepare_dataset_folder(tmp_path / "source", tmp_path / "data", 2)
    whole = PatchDataset([folder], 2, 16)
    assert whole[0][0].shape == (3, 16, 16)
    assert "decoding data: 100%" in capsys.readouterr().err
    cut_short(folder / "LRx2" / "07.png")
    damaged = PatchDataset([folder], 2, 16)  # the header is whole
    with pytest.raises(InputError, match="LRx2/07.png' cannot be read"):
        damaged[0]
    EvaluationPairs(folder / "LRx2", 2)
    with pytest.raises(InputError, match="LRx2/07.png' cannot be read"):
        decoding.finish_decoding()
    decoding.finish_decoding()  # said once


def test_an_image_is_decoded_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(decoding, "read_picture", decoded.append)
    paths = [write(tmp_path / f"{number}.png", photo(number)) for number in range(3)]
    EvaluationPairs(tmp_path, 2)
    EvaluationPairs(tmp_path, 2)
    assert decoded == paths
    write(paths[1], photo(7, 100, 100))
    EvaluationPairs(tmp_path, 2)
    assert decoded == [*paths, paths[1]]
