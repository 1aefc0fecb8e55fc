"""What a report is about: run folders, alone or as the trials of a sweep, read and checked.

Nothing that a folder holds is run: plugins that its configuration names are not imported, files are JSON and YAML. This
module loads neither torch nor matplotlib, so that what is no run is refused at once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError, about, shown
from quantnas_ext.files.paths import seen_from
from quantnas_ext.files.schema import read_yaml_file
from quantnas_ext.runs.run_folder import RunFolder, TrainingFolder

STATUSES = ("waiting", "running", "done", "failed")
_TRAININGS = ("quantized", "train")  # of recipes/demo.py and recipes/train.py
_OURS = ("quantized", "network")  # how evaluations call the found network
_LARGEST = 200_000_000  # bytes of a JSON file; a history of some hundred epochs has a few million
_METHODS = {
    "noise": "quantization noise",
    "direct": "direct quantization",
    "direct_separate": "direct, separate weights",
    "none": "no quantization",
}

Scores = dict[str, dict[str, dict[str, float]]]
"""Figures by data set and network: ``{"Set14": {"ours": {"psnr": 27.6, "ssim": 0.75}, "bicubic": {...}}}``."""


@dataclass(frozen=True)
class Trial:
    """One run, as far as it has got.

    Attributes:
        name: what it is called; different in every trial of a report.
        folder: where it lies.
        status: one of ``STATUSES``.
        method: how it was searched.
        seed: of all its random numbers; None where nothing tells it.
        budget: most BitOps that it may cost; None for none.
        error: why it failed; empty otherwise.
        config: its whole configuration as plain values; empty for an architecture without one.
        architecture: file of what was found; None before.
        weights: file of the trained weights, None where there are none.
        history: content of ``history.json``; None for a run that was not searched here.
        scores: its evaluation.
    """

    name: str
    folder: Path
    status: str
    method: str
    seed: int | None = None
    budget: float | None = None
    error: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    architecture: Path | None = None
    weights: Path | None = None
    history: Mapping[str, Any] | None = None
    scores: Scores = field(default_factory=dict)

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the configuration; empty where it is missing."""
        found = self.config.get(name)
        return found if isinstance(found, Mapping) else {}

    @property
    def scale(self) -> int | None:
        """How many times its networks enlarge images; None where the configuration does not say."""
        arguments = self.section("space").get("arguments")
        scale = arguments.get("scale") if isinstance(arguments, Mapping) else None
        return scale if type(scale) is int else None


def read_trials(folders: Sequence[str | Path]) -> list[Trial]:
    """All runs in some folders: run folders of a search, a demo or a training, and sweeps with their trials.

    A trial of a sweep that cannot be read counts as failed; a folder given twice counts once.

    Raises:
        InputError: a folder is missing or no run, a run's file is damaged, or nothing has ended yet.
    """
    trials: list[Trial] = []
    seen: set[str] = set()
    for folder in map(Path, folders):
        found = [trial for trial in _trials_in(folder) if os.path.realpath(trial.folder) not in seen]
        seen.update(os.path.realpath(trial.folder) for trial in found)
        trials += found
    if not any(trial.status == "done" for trial in trials):
        counts = ", ".join(f"{sum(t.status == s for t in trials)} {s}" for s in STATUSES if s != "done")
        where = ", ".join(f"'{folder}'" for folder in folders)
        reason = next((f"; the first failure: {trial.error}" for trial in trials if trial.error), "")
        raise InputError(
            f"no run in {where} has found its architecture yet ({counts}); report on it once a search has ended{reason}"
        )
    return _named_apart(trials)


def _trials_in(folder: Path) -> Iterator[Trial]:
    """The run in a folder, or the trials of a sweep."""
    try:
        kind = "folder" if folder.is_dir() else "file" if folder.exists() else ""
    except (OSError, ValueError) as error:
        raise InputError(f"folder '{folder}' cannot be read ({error}); name a run folder or a sweep") from error
    if not kind:
        raise InputError(f"folder '{folder}' does not exist{seen_from(folder)}; name a run folder or a sweep")
    if kind == "file":
        raise InputError(f"'{folder}' is a file; name the folder of a run or a sweep")
    if not (folder / "trials").is_dir():
        yield _run_in(folder)
        return
    below = sorted(path for path in (folder / "trials").iterdir() if path.is_dir())
    if not below:
        raise InputError(f"sweep '{folder}' has no trials; report on it once one of them has ended")
    for path in below:
        yield _trial_in(path)


def _run_in(folder: Path) -> Trial:
    """The run in a folder.

    Raises:
        InputError: there is none, or one of its files is damaged.
    """
    whole = run = RunFolder(folder)
    if not run.architecture.is_file() and run.step("precisions").architecture.is_file():
        run = run.step("precisions")  # the second of two searches found it
    if not run.config.is_file() and not run.architecture.is_file():
        raise InputError(
            f"'{folder}' is neither a run folder (it has no {run.config.name}) nor a sweep (it has no trials); name "
            "the folder of a search, a demo, a training or a sweep"
        )
    config = _mapping(run.config) if run.config.is_file() else {}
    found = run.architecture if run.architecture.is_file() else None
    inside = [one.training(name) for one in dict.fromkeys((whole, run)) for name in _TRAININGS]
    trainings = [TrainingFolder(folder), *inside]
    trained = next((training for training in trainings if training.weights.is_file()), None)
    if found is not None:
        Architecture.check_form(found)
        found = trained.architecture if trained and trained.architecture.is_file() else found
    search = config.get("search")
    search = search if isinstance(search, Mapping) else {}
    seed, budget = config.get("seed"), search.get("bitops_budget")
    method = _METHODS.get(str(search.get("quantization")), "search")
    return Trial(
        name=folder.resolve().name,
        folder=folder,
        status="done" if found else "running",
        method=f"two-step, {method}" if search.get("operations") else method,
        seed=seed if type(seed) is int else None,  # true is none
        budget=_number(budget),
        config=config,
        architecture=found,
        weights=trained.weights if trained else None,
        history=_json(run.history) if run.history.is_file() else None,
        scores=next((_scores(one.evaluation, config) for one in (whole, run) if one.evaluation.is_file()), {}),
    )


def _trial_in(folder: Path) -> Trial:
    """One trial of a sweep, whose ``trial.json`` says what it is and how it stands."""
    try:
        told = _json(folder / "trial.json") if (folder / "trial.json").is_file() else {}
        started = any(path.is_file() for path in (RunFolder(folder).config, RunFolder(folder).architecture))
        run = _run_in(folder) if started else Trial(folder.name, folder, "waiting", "search")
    except InputError as error:
        return Trial(folder.name, folder, "failed", "unknown", error=str(error))
    status = told.get("status", run.status)
    reason = str(told.get("error") or "")
    if status not in STATUSES:
        status, reason = "failed", f"trial.json has the unknown status {shown(status)}"
    if status == "done" and run.architecture is None:
        status, reason = "failed", "it is said to be done, but there is no architecture.yaml"
    seed, budget = told.get("seed", run.seed), told.get("budget", run.budget)
    return replace(
        run,
        name=str(told.get("name") or folder.name),
        status=status,
        method=str(told.get("method") or run.method),
        seed=seed if type(seed) is int else None,
        budget=_number(budget),
        error=reason,
    )


def _named_apart(trials: list[Trial]) -> list[Trial]:
    """The trials, those of one name with the folder above in it and, where that does not suffice, a number."""
    names = [trial.name for trial in trials]
    taken: set[str] = set()
    found = []
    for trial in trials:
        name = trial.name
        if names.count(name) > 1:
            name = f"{trial.folder.resolve().parent.name}/{name}"
        number, base = 2, name
        while name in taken:
            name, number = f"{base} ({number})", number + 1
        taken.add(name)
        found.append(replace(trial, name=name))
    return found


def _scores(path: Path, config: Mapping[str, Any]) -> Scores:
    """The figures in an evaluation of ``recipes/evaluate.py`` (many data sets) or of ``recipes/demo.py`` (one)."""
    content = _json(path)
    if isinstance(content.get("datasets"), Mapping):
        return {
            str(name): _figures({method: found.get("mean") for method, found in methods.items() if _is(found)})
            for name, methods in content["datasets"].items()
            if _is(methods)
        }
    data = config.get("data")
    tests = data.get("test") if isinstance(data, Mapping) else None
    name = next(iter(tests), "photographs") if isinstance(tests, Mapping) else "photographs"
    return {str(name): _figures(content)}


def _figures(methods: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers of every network, the found one being ``ours``."""
    return {
        "ours" if method in _OURS else str(method): {
            str(name): value for name, given in figures.items() if (value := _number(given)) is not None
        }
        for method, figures in methods.items()
        if _is(figures)
    }


def _is(value: Any) -> bool:
    return isinstance(value, Mapping)


def _number(value: Any) -> float | None:
    """A finite number, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    with about(f"'{path}' cannot be used as the configuration of a run"):
        content = read_yaml_file(path)
        if not isinstance(content, dict):
            raise InputError("it should hold keys with values, as a search writes them")
        return content


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, without infinities, which JSON does not have.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"'{path}' is larger than {_LARGEST // 1_000_000} MB, which no file of a run is")
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); name a run folder that can") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise InputError(
            f"'{path}' is not valid JSON ({error}); give the run folder as the recipes wrote it"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds no JSON object; give the run folder as the recipes wrote it")
    return content
