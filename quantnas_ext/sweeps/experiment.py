"""What NNI is told of a sweep: its configuration of the experiment, and the command of a trial."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from quantnas_ext.errors import InputError
from quantnas_ext.sweeps.planning import search_space
from quantnas_ext.sweeps.sweep_file import SweepConfig
from quantnas_ext.sweeps.sweep_folder import SweepFolder


def trial_command(folder: SweepFolder) -> str:
    """What NNI runs as a trial: one simple command, so that the shell it goes through becomes that."""
    return shlex.join([sys.executable, "-m", "quantnas_ext.sweeps.launcher", str(folder)])


def share_of_cores(sweep: SweepConfig, trials: int) -> tuple[int, int]:
    """Trials at a time, and threads of each, which together take no more than the cores that there are."""
    from quantnas_ext.threads import available_cores

    cores, _ = available_cores()
    concurrency = sweep.concurrency or max(1, min(trials, cores // (sweep.threads or 1)))
    return concurrency, sweep.threads or max(1, cores // concurrency)


def experiment_config(sweep: SweepConfig, folder: SweepFolder, concurrency: int) -> dict[str, Any]:
    """NNI's configuration of a sweep, as its server takes it.

    Raises:
        InputError: NNI refuses the section of the training service, or the tuner.
    """
    from nni.experiment.config import ExperimentConfig

    space = None
    if sweep.architectures is not None:
        from quantnas_ext.sweeps.architectures import base_config, choices_of

        space = choices_of(base_config(sweep, folder.trials))
        # Shown in the portal; the strategy itself runs in our process.
        tuner: dict[str, Any] = {"className": f"nni.nas.strategy.{sweep.architectures}", "codeDirectory": os.getcwd()}
    elif sweep.grid:
        package = str(Path(__file__).parents[2])
        tuner = {"className": "quantnas_ext.sweeps.tuner.PlannedTrials", "codeDirectory": package}
        tuner["classArgs"] = {"sweep": str(folder)}
    else:
        arguments = {"optimize_mode": "maximize", **sweep.tuner.arguments}
        tuner = {"name": sweep.tuner.name, "classArgs": arguments}
    try:
        config = ExperimentConfig(
            experimentName=folder.path.name,
            searchSpace=search_space(sweep) if space is None else space,
            trialCommand=trial_command(folder),
            trialCodeDirectory=os.getcwd(),
            trialConcurrency=concurrency,
            maxTrialNumber=None if sweep.grid else sweep.trials,
            experimentWorkingDirectory=str(folder.nni),
            tuner=tuner,
            trainingService=sweep.training_service,
        )
        written: dict[str, Any] = config.json()
    except Exception as error:  # NNI's checks raise AssertionError, AttributeError, ValueError and others
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"NNI does not take 'training_service' or 'tuner' as they are ({reason})") from error
    return written
