"""Crops of test images by the trained networks of several runs, for a report on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantnas_ext.errors import InputError
from quantnas_ext.notices import notice
from quantnas_ext.reporting.report.trials import Trial
from quantnas_ext.spaces import scale_of
from quantnas_ext.sr.evaluation.crops import image_crops
from quantnas_ext.sr.training.arch import trained_network


@dataclasses.dataclass(frozen=True)
class _Images:
    """Where a run's test images lie."""

    folder: str
    scale: int
    nested: bool


def trial_crops(trials: Sequence[Trial], images: int) -> dict[str, list[dict[str, Any]]]:
    """Crops of the first test images of every run that has trained weights, by the run's name; see ``image_crops``.

    A run has none, and a notice says why, whose weights cannot be used, or whose test images are no longer where its
    configuration says.

    Args:
        trials: the runs.
        images: how many images of each, at most.
    """
    groups: dict[_Images, dict[str, nn.Module]] = {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for trial in trials:
        if images == 0 or trial.architecture is None or trial.weights is None or trial.status != "done":
            continue
        try:
            network, lines = trained_network(str(trial.architecture), str(trial.weights))
            scale = scale_of(network)
        except InputError as error:
            notice(f"no crops of run '{trial.name}': {error}")
            continue
        for line in lines:
            notice(f"{trial.name}: {line}")
        found = _test_images(trial, scale)
        if found is None:
            notice(f"the test images of run '{trial.name}' are not where its configuration says, so it has no crops")
        else:
            groups.setdefault(found, {})[trial.name] = network.to(device)
    crops: dict[str, list[dict[str, Any]]] = {}
    for place, networks in groups.items():
        try:
            crops |= image_crops(place.folder, place.scale, networks, images=images, nested=place.nested)
        except InputError as error:
            notice(f"no crops of '{place.folder}': {error}")
    return crops


def _test_images(trial: Trial, scale: int) -> _Images | None:
    """The folder of a run's first data set, or of the photographs of scikit-image; None where it is gone."""
    data = trial.section("data")
    tests, photographs = data.get("test"), data.get("photographs")
    folder = next(iter(tests.values()), None) if isinstance(tests, dict) else None
    if folder is None and isinstance(photographs, str):
        folder = str(Path(photographs) / f"testx{scale}")
    if not isinstance(folder, str) or not Path(folder).expanduser().is_dir():
        return None
    return _Images(str(Path(folder).expanduser()), scale, data.get("nested") is True)
