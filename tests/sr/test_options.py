from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quantnas_ext.errors import InputError
from quantnas_ext.runs.config import load_config
from quantnas_ext.sr.training.basicsr_options import (
    final_training_options,
    parse_arguments,
    read_options,
    write_options,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    values = ["data.train=[some/images]", "data.test={Set5: other}", "train.iterations=3000", "seed=9"]
    config = load_config(None, values)
    write_options(final_training_options(config, 3, 40, "a.yaml", None), tmp_path / "options.yml")
    return tmp_path / "options.yml"


def read(file: Path, *arguments: str) -> dict[str, Any]:
    return read_options(parse_arguments(["-opt", str(file), *arguments]), str(file.parent))


def test_basicsr_reads_the_file_as_we_do(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from basicsr.utils.options import parse_options

    monkeypatch.setattr("sys.argv", ["train", "-opt", str(file), "--auto_resume", "--force_yml", "train:total_iter=7"])
    theirs, _ = parse_options(str(file.parent))
    ours = read(file, "--auto_resume", "--force_yml", "train:total_iter=7")
    theirs["num_gpu"] = min(theirs["num_gpu"], 1)  # "auto" takes all GPUs there, which one process cannot drive well
    assert ours == theirs


def test_paths_are_absolute_and_an_epoch_is_long(file: Path) -> None:
    options = read(file)
    assert options["datasets"]["train"]["folders"] == [str(Path("some/images").absolute())]
    assert options["network_g"]["architecture"] == str(Path("a.yaml").absolute())
    # A thousand iterations of 8 crops from 40 images.
    assert options["datasets"]["train"]["dataset_enlarge_ratio"] == 200
    assert options["path"]["models"] == str(file.parent / "experiments" / "train" / "models")


def test_reading_seeds_random_numbers(file: Path) -> None:
    read(file)
    first = torch.rand(3)
    read(file)
    assert torch.equal(torch.rand(3), first)
    read(file, "--force_yml", "manual_seed=10")
    assert not torch.equal(torch.rand(3), first)


def test_overrides_are_values_and_never_code(file: Path) -> None:
    options = read(file, "--force_yml", "train:optim_g:lr=1e-3", "train:ema_decay=0.5", "val:metrics=none")
    assert options["train"]["optim_g"]["lr"] == 1e-3 and options["train"]["ema_decay"] == 0.5
    assert options["val"]["metrics"] is None
    text = 'train"]; raise SystemExit; opt["x=1'
    assert read(file, "--force_yml", text)['train"]; raise SystemExit; opt["x'] == 1
    with pytest.raises(InputError, match="a:b=1' is not possible"):
        read(file, "--force_yml", "a:b=1")
    with pytest.raises(InputError, match="'--force_yml train' is not possible"):
        read(file, "--force_yml", "train")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "does not exist"),
        ("a: [", "cannot be read: not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "cannot be read: not valid YAML"),
        ("- a", "lacks 'name'"),
        ("{name: a, model_type: SRModel, scale: 2, num_gpu: 0, datasets: {}}", "lacks 'datasets:train'"),
    ],
)
def test_files_that_hold_no_options_are_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "options.yml").write_text(text)
    with pytest.raises(InputError, match=f"options.yml' {reason}"):
        read(tmp_path / "options.yml")
