"""The images that a run of the judge trains on, validates with and tests on."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.judge.jobs import ROOT


def training_and_test(data: Path | None, scratch: Path) -> tuple[list[Path], list[Path], dict[str, list[Path]]]:
    """The images for training, for validation, and for each test; ``scratch`` takes the packaged photographs."""
    if data is None:
        from quantnas_ext.runs.config import DataConfig
        from quantnas_ext.sr.data.photographs import with_photographs

        with_photographs(DataConfig(photographs=str(scratch)), 4)
        images, test = ([*sorted((scratch / f"{part}x4" / "HR").iterdir())] for part in ("train", "test"))
        held = [path for path in images if path.name.startswith(("china", "rocket"))]
        return [path for path in images if path not in held], held, {"photographs": test}
    training: list[Path] = []
    validation: list[Path] = []
    tests: dict[str, list[Path]] = {}
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        inside = folder / "HR" if (folder / "HR").is_dir() else folder
        images = sorted(path for path in inside.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))
        if folder.name in ("Set5", "Set14"):
            tests[folder.name] = images
        else:
            training += [path for index, path in enumerate(images) if index % 10 != 9]
            validation += images[9::10]
    return training, validation, tests


def prepared(data: Path | None, work: Path) -> tuple[Path, str]:
    """A folder with the dataset folder ``train`` and the folders of ``test``, and a digest of all their images."""
    training, validation, tests = training_and_test(data, work / "photographs")
    if not training or not validation or not tests:
        raise SystemExit(f"error: '{data}' has no training images or neither Set5 nor Set14 beside them")
    parts = {"train": training, "validation": validation, **tests}
    digest = hashlib.sha256()
    for name, images in parts.items():
        for path in images:
            digest.update(f"{name}/{path.name}".encode() + hashlib.sha256(path.read_bytes()).digest())
    identity = digest.hexdigest()[:16]
    folder = work / f"data-{identity}"
    if not (folder / "train").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        for name, images in parts.items():
            target = folder / ("photographs" if name == "train" else f"test/{name}")
            target.mkdir(parents=True)
            for number, path in enumerate(images):
                (target / f"{number:04d}_{path.name}").symlink_to(path.resolve())
        recipe = str(ROOT / "recipes" / "prepare_data.py")
        subprocess.run(
            [sys.executable, recipe, str(folder / "photographs"), str(folder / "train"), "--scale", "4"], check=True
        )
    return folder, identity
