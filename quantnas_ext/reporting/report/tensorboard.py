"""All runs of a report for TensorBoard: curves, pictures, and the table and plots of its HParams page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

_KINDS = ("lr", "bicubic", "ours", "hr")


def write_tensorboard(
    content: Mapping[str, Any], drawings: Sequence[bytes], folder: Path, places: Sequence[str]
) -> None:
    """Write a folder for ``tensorboard --logdir``, with one folder a run.

    Args:
        content, drawings: of ``report_contents``.
        folder: to write to.
        places: name of the folder of every trial.
    """
    differing = _differing(content["trials"])
    for trial, place in zip(content["trials"], places, strict=True):
        if trial["status"] != "done":
            continue
        with SummaryWriter(str(folder / place)) as board:
            for name, values in (trial.get("curves") or {}).items():
                if name in ("epochs", "of"):
                    continue
                for epoch, value in zip(trial["curves"]["epochs"], values, strict=True):
                    if value is not None:
                        board.add_scalar(f"search/{name}", value, epoch)
            if trial.get("drawing") is not None:
                board.add_image("architecture", _pixels(drawings[trial["drawing"]]), dataformats="HWC")
            for crop in trial["crops"]:
                board.add_image(f"images/{crop['image']} (LR, bicubic, ours, HR)", _strip(crop), dataformats="HWC")
            told = {name: trial[name] for name in ("method", "seed", "budget") if trial[name] is not None}
            values = {key: trial["config"][key] for key in differing if trial["config"].get(key) is not None}
            board.add_hparams(told | values, _metrics(trial), run_name=".")


def _differing(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of the configurations that are not the same in all of them."""
    keys = dict.fromkeys(key for trial in trials for key in trial["config"] if key not in ("run", "seed"))
    return [key for key in keys if len({repr(trial["config"].get(key)) for trial in trials if trial["config"]}) > 1]


def _metrics(trial: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a run, by names that TensorBoard groups."""
    scores = {f"{figure}/{data}": value for data, found in trial["scores"].items() for figure, value in _ours(found)}
    costs = {f"cost/{key}": float(value) for key, value in trial["costs"].items()}
    told = {f"search/final_{key}": trial[key] for key in ("entropy", "least_decided") if trial.get(key) is not None}
    return scores | costs | told


def _ours(found: Mapping[str, Mapping[str, float]]) -> list[tuple[str, float]]:
    return list(found.get("ours", {}).items())


def _pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def _strip(crop: Mapping[str, Any]) -> np.ndarray:
    """The four crops of an image beside each other, the pixels of LR as squares."""
    images = [Image.open(io.BytesIO(crop[kind])).convert("RGB") for kind in _KINDS]
    size = (crop["side"], crop["side"])
    return np.concatenate([np.asarray(image.resize(size, Image.Resampling.NEAREST)) for image in images], axis=1)
