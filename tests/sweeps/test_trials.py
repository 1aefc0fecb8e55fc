"""What a trial does, without NNI's server: shared warm-ups, every method, and what it reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantnas_ext.architecture import Architecture
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.sr.search_run import search
from quantnas_ext.sr.weights.weight_files import read_weight_file
from quantnas_ext.sweeps.architectures import architecture_trial, choices_of
from quantnas_ext.sweeps.planning import METHODS, PlannedTrial, plan_grid, plan_trial
from quantnas_ext.sweeps.reporting import EpochReports
from quantnas_ext.sweeps.sweep_file import SweepConfig
from quantnas_ext.sweeps.sweep_folder import SweepFolder, TrialRecord
from quantnas_ext.sweeps.trial import run_trial
from quantnas_ext.sweeps.warmup import search_from_shared_warmup, shared_warmup

BUDGETS = [4.5e7, 6e7]


class Channel:
    """Keeps what a trial tells NNI."""

    def __init__(self) -> None:
        self.told: list[dict[str, float]] = []

    def intermediate(self, figures: dict[str, float], sent: int) -> None:
        self.told.append(figures)


def run(folder: SweepFolder, trial: PlannedTrial) -> tuple[dict[str, float], list[dict[str, float]]]:
    folder.write(TrialRecord.of(trial, 1))
    channel = Channel()
    return run_trial(folder, trial, channel, 0), channel.told


def test_searches_that_share_a_warm_up_leave_what_separate_ones_leave(workshop: Path, tmp_path: Path) -> None:
    sweep = SweepConfig(config=str(workshop / "config.yaml"), parameters={"search.bitops_budget": BUDGETS})
    trials = plan_grid(sweep, tmp_path / "trials")
    assert shared_warmup(trials[0].config, tmp_path) == shared_warmup(trials[1].config, tmp_path)
    seen: dict[str, list[int]] = {}
    for trial in trials:
        epochs = seen.setdefault(trial.name, [])
        reports = EpochReports(
            Path(trial.config.run), lambda record, figures, epochs=epochs: epochs.append(record.epoch)
        )
        search_from_shared_warmup(trial.config, tmp_path / "warmups", reports)
    assert list(seen.values()) == [[1, 2, 3]] * 2
    assert len([path for path in (tmp_path / "warmups").iterdir() if path.is_dir()]) == 1
    for trial, apart in zip(trials[:1], plan_grid(sweep, tmp_path / "apart")[:1], strict=True):
        search(apart.config)
        forked, own = RunFolder(trial.config.run), RunFolder(apart.config.run)
        assert json.loads(forked.history.read_text()) == json.loads(own.history.read_text())
        assert Architecture.load(forked.architecture).choices == Architecture.load(own.architecture).choices
        weights, others = (read_weight_file(one.weights).weights for one in (forked, own))
        assert all(weights[name].equal(others[name]) for name in others)
    first, second = (json.loads(RunFolder(trial.config.run).history.read_text()) for trial in trials)
    assert first["epochs"][:3] == second["epochs"][:3]


def test_other_methods_seeds_and_rates_have_a_warm_up_of_their_own(workshop: Path, tmp_path: Path) -> None:
    lists: dict[str, list[Any]] = {
        "method": ["noise", "direct"], "seed": [0, 1], "search.weight_learning_rate": [1e-3, 2e-3],
        "search.bitops_penalty": [0.0, 0.1],
    }  # fmt: skip
    trials = plan_grid(SweepConfig(config=str(workshop / "config.yaml"), parameters=lists), tmp_path)
    assert len({shared_warmup(trial.config, tmp_path).run for trial in trials}) == 8


@pytest.mark.parametrize("method", [method for method in METHODS if not method.startswith("direct")])
def test_every_method_ends_in_a_trained_and_scored_network(method: str, workshop: Path, tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    sweep = SweepConfig(config=str(workshop / "config.yaml"), parameters={"seed": [0]}, threads=1)
    trial = plan_trial(sweep, {"method": method, "search.bitops_budget": 6e7}, folder.trials)
    figures, told = run(folder, trial)
    place = RunFolder(trial.config.run)
    found = Architecture.load(place.training("quantized").architecture)
    assert figures["bitops"] == found.cost["bitops_32"] and figures["psnr"] > 0
    assert method == "darts" or figures["bitops"] <= 6e7
    assert json.loads(place.evaluation.read_text())["quantized"]["psnr"] == figures["psnr"]
    if method in ("random", "darts"):
        assert not told
        return
    assert len(told) == (6 if method == "two_step" else 3)
    for epoch in told:
        assert {"default", "train_loss", "entropy", "least_decided", "expected_bitops"} <= epoch.keys()
    if method == "uniform":
        bits = {value for label, value in found.choices.items() if label.endswith("__bits")}
        assert len(bits) == 1
    else:
        assert 0 < figures["least_decided"] <= 1 and figures["entropy"] >= 0
    again, told_again = run(folder, trial)  # all is done
    assert again == figures and not told_again


def test_an_architecture_is_flat_parameters_and_one_trial_trains_it(workshop: Path, tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    sweep = SweepConfig(config=str(workshop / "config.yaml"), architectures="Random", trials=1)
    space = choices_of(architecture_trial(sweep, {}, folder.trials).config)
    assert all(entry["_type"] == "choice" for entry in space.values())
    choices = {label: entry["_value"][-1] for label, entry in space.items()}
    trial = architecture_trial(sweep, choices, folder.trials)
    assert trial.name == architecture_trial(sweep, dict(reversed(choices.items())), folder.trials).name
    figures, told = run(folder, trial)
    found = Architecture.load(RunFolder(trial.config.run).architecture)
    assert found.choices.items() <= choices.items() and figures["bitops"] == found.cost["bitops_32"] and not told
