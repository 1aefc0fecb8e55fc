"""Full and read-only disks, and two processes at the same work, as machines and their users have them."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from matplotlib.figure import Figure
from PIL import Image

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import WriteError, atomic_file, atomic_folder, save_tensors
from quantnas_ext.files.lock import LOCK_FILES, run_lock
from quantnas_ext.reporting.figures import save_figure
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import Config, save_config
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.search.loop.checkpoint import load_checkpoint
from quantnas_ext.sr.data import folders
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.images import write_png
from quantnas_ext.sr.evaluation.score_files import check_new_file, write_json
from quantnas_ext.sr.training.basicsr_options import write_options
from quantnas_ext.sr.weights.weight_files import read_weight_file, save_weights

LIMIT = 256  # bytes that a file may have on the "full" disk of these tests


@contextlib.contextmanager
def full_disk(limit: int = LIMIT) -> Iterator[None]:
    """No file can grow beyond so many bytes: writing fails midway, as on a full disk or beyond a quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


WRITERS: dict[str, Callable[[Path], object]] = {
    "search.ckpt": lambda path: save_tensors({"weights": torch.rand(999)}, path),
    "weights.safetensors": lambda path: save_weights({"weight": torch.rand(999)}, path),
    "config.yaml": lambda path: save_config(Config(), path),
    "evaluation.json": lambda path: write_json({"psnr": [0.1] * 999}, path),
    "options.yml": lambda path: write_options({"datasets": {}, "path": {}, "many": ["option"] * 999}, path),
    "image.png": lambda path: write_png(path, noise(40, 40, 3)),
    "plot.png": lambda path: save_figure(Figure(), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_up_ends_in_a_sentence_and_keeps_the_last_whole_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    before = path.read_bytes()
    with full_disk(), pytest.raises(InputError) as refused:
        WRITERS[name](path)
    assert str(refused.value) == f"'{path}' cannot be written (File too large); make room there, or name another place"
    assert [entry.name for entry in tmp_path.iterdir()] == [name] and path.read_bytes() == before


def test_a_checkpoint_that_lacks_its_last_bytes_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "search.ckpt"
    state = {f"weights_{number}": torch.rand(50) for number in range(20)}
    save_tensors(state, path)
    size = path.stat().st_size
    for limit in (0, size // 2, *range(size - 9000, size, 500)):
        with full_disk(limit), pytest.raises(WriteError, match="File too large"):
            save_tensors({**state, "weights_0": torch.zeros(50)}, path)
    assert torch.equal(load_checkpoint(path)["weights_0"], state["weights_0"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["search.ckpt"]


def test_a_disk_that_fills_up_while_data_are_prepared_leaves_no_half_dataset(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / "images" / "photo.png")
    with full_disk(), pytest.raises(InputError, match=f"^'{tmp_path / 'new' / 'data'}' cannot be written"):
        prepare_dataset_folder(tmp_path / "images", tmp_path / "new" / "data", 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["images"]


def test_a_library_that_meets_a_full_disk_by_itself_ends_the_recipe_in_a_sentence_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(arguments: list[str] | None) -> None:
        with full_disk():
            np.savez(tmp_path / "of_a_library.npz", np.zeros(9999))

    with pytest.raises(SystemExit) as ended:
        command_line.run(main)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and "cannot be written (File too large)" in error


def test_a_full_disk_is_noticed_before_the_long_work(tmp_path: Path) -> None:
    with full_disk():
        for check in (
            lambda: check_new_file(tmp_path / "scores.json"),
            lambda: RunFolder(tmp_path / "runs" / "new").make(),
        ):
            with pytest.raises(WriteError, match="make room there"):
                check()
    assert not list(tmp_path.iterdir())


def test_a_name_as_long_as_a_file_system_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 125 + ".json")  # 255 bytes
    check_new_file(path)
    write_json({"psnr": 30.0}, path)
    assert json.loads(path.read_text()) == {"psnr": 30.0}


def test_preparing_the_same_data_twice_at_once_accepts_what_the_other_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / "images" / "photo.png")
    whole = prepare_dataset_folder(tmp_path / "images", tmp_path / "whole", 2)
    downscale = folders.downscale

    def slowly(*arguments: object) -> np.ndarray:
        """The other process begins and ends while this one is still at its first image."""
        monkeypatch.setattr(folders, "downscale", downscale)
        prepare_dataset_folder(tmp_path / "images", tmp_path / "data", 2)
        return downscale(*arguments)

    monkeypatch.setattr(folders, "downscale", slowly)
    assert prepare_dataset_folder(tmp_path / "images", tmp_path / "data", 2) == tmp_path / "data"
    for name in ("HR/photo.png", "LRx2/photo.png"):
        assert filecmp.cmp(tmp_path / "data" / name, whole / name, shallow=False)
    assert {entry.name for entry in tmp_path.iterdir()} == {"images", "whole", "data"}


def test_a_folder_made_meanwhile_is_taken_if_it_is_the_same_and_refused_if_not(tmp_path: Path) -> None:
    def make(content: str) -> None:
        with atomic_folder(tmp_path / "data", same=lambda ours, theirs: filecmp.cmp(ours / "a", theirs / "a")) as new:
            (new / "a").write_text(content)
            (tmp_path / "data").mkdir()
            (tmp_path / "data" / "a").write_text("theirs")

    with pytest.raises(InputError, match="was made by another process meanwhile, and holds something else"):
        make("ours, which differ")
    assert (tmp_path / "data" / "a").read_text() == "theirs" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "data" / "a").unlink()
    (tmp_path / "data").rmdir()
    make("theirs")
    assert (tmp_path / "data" / "a").read_text() == "theirs" and len(list(tmp_path.iterdir())) == 1


HOLDER = """
import sys, time
from quantnas_ext.files.lock import run_lock
with run_lock(sys.argv[1]):
    open(sys.argv[1] + "/.search.ckpt.0123456789ab.tmp", "w").write("half")
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_folder_belongs_to_one_process_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=f"in use by process {holder.pid} on {os.uname().nodename}"):
        with RunFolder(tmp_path).held(resume=True):
            pass
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}  # nothing of the live run was touched
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunFolder(tmp_path).held(resume=True), run_lock(tmp_path):
        assert not list(tmp_path.glob("*.tmp"))  # what it was writing when it was killed
    assert {path.name for path in tmp_path.iterdir()} - LOCK_FILES == {"config.yaml"}
    with run_lock(tmp_path):  # nor is it held longer than it was
        pass


def test_the_second_of_two_fresh_runs_does_not_fill_the_first_ones_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").held() as folder:
        lock = FileLock(folder / ".lock")
        with pytest.raises(TimeoutError):
            lock.acquire(blocking=False)
        (folder / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(InputError, match="already holds a run"), RunFolder(folder).held():
        pass


def test_a_file_system_without_locks_gets_a_warning_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: FileLock, *arguments: object, **options: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with run_lock(tmp_path):
        (tmp_path / "config.yaml").write_text("seed: 0\n")
    assert "has no locks" in capsys.readouterr().err and (tmp_path / "config.yaml").exists()


def test_an_interrupted_writer_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    save_tensors({"step": 1}, tmp_path / "search.ckpt")
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "search.ckpt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert load_checkpoint(tmp_path / "search.ckpt") == {"step": 1} and len(list(tmp_path.iterdir())) == 1
    save_weights({"weight": torch.ones(2)}, tmp_path / "network.safetensors")
    assert torch.equal(read_weight_file(tmp_path / "network.safetensors").weights["weight"], torch.ones(2))
