"""What is checked of a sweep before its first trial starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantnas_ext.errors import about, unknown_name
from quantnas_ext.sweeps.planning import PlannedTrial, examples, plan_grid, plan_trial
from quantnas_ext.sweeps.sweep_file import SweepConfig
from quantnas_ext.sweeps.sweep_folder import SweepFolder, TrialRecord


def planned(sweep: SweepConfig, parameters: dict[str, Any], trials: Path) -> PlannedTrial:
    """The trial that some parameters stand for."""
    if sweep.architectures is None:
        return plan_trial(sweep, parameters, trials)
    from quantnas_ext.sweeps.architectures import architecture_trial

    return architecture_trial(sweep, parameters, trials)


def check_sweep(sweep: SweepConfig, folder: SweepFolder) -> list[TrialRecord]:
    """Check all trials of a sweep as far as that needs no torch; the records of a grid.

    Raises:
        InputError: one of them could not run.
    """
    if sweep.grid:
        return [TrialRecord.of(trial, number) for number, trial in enumerate(plan_grid(sweep, folder.trials), start=1)]
    if sweep.architectures is not None:
        from quantnas_ext.sweeps.architectures import base_config

        base_config(sweep, folder.trials)
        return []
    _check_tuner(sweep.tuner.name)
    for parameters in examples(sweep):
        plan_trial(sweep, parameters, folder.trials)
    return []


def _check_tuner(name: str) -> None:
    from nni.tools.package_utils.tuner_factory import _get_all_builtin_names

    known = ["Grid", *_get_all_builtin_names("tuners")]
    if name.lower() not in [one.lower() for one in known]:
        raise unknown_name("tuner", name, known)


def check_searches(sweep: SweepConfig, folder: SweepFolder) -> None:
    """Check what only a look at spaces, images and costs tells, before the first trial starts; loads torch.

    Raises:
        InputError: naming the trial that could not run.
    """
    from quantnas_ext.runs.search_goals import goals_of
    from quantnas_ext.search.strategy import QuantNAS
    from quantnas_ext.spaces import build_space
    from quantnas_ext.sr.data.search_data import search_datasets

    if sweep.architectures is not None:
        planned_trials = [planned(sweep, {}, folder.trials)]
    elif sweep.grid:
        planned_trials = plan_grid(sweep, folder.trials)
    else:
        planned_trials = [plan_trial(sweep, parameters, folder.trials) for parameters in examples(sweep)]
    seen: set[str] = set()
    for trial in planned_trials:
        goals = goals_of(trial.config.search)
        key = repr((trial.config.space, trial.config.data, goals))
        if key in seen:
            continue
        seen.add(key)
        with about(f"trial '{trial.name}'"):
            space = build_space(trial.config.space.name, trial.config.space.arguments)
            search_datasets(trial.config, space)
            QuantNAS(trial.config.search, costs=goals).check(space)
