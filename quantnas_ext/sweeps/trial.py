"""`accelerate launch -m quantnas_ext.sweeps.trial SWEEP`: one trial, with the parameters that NNI has chosen for it.

Architecture, final training, evaluation: everything lands in the trial's run folder, as `recipes/demo.py` leaves it.
What an earlier start has done is not done again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from quantnas_ext.errors import InputError
from quantnas_ext.files.lock import run_lock
from quantnas_ext.runs.config import Config
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.sweeps.planning import PlannedTrial, plan_trial
from quantnas_ext.sweeps.sweep_folder import SweepFolder, TrialRecord

TRAINING = "quantized"
"""Folder of the final training, as the demo calls it."""


def main(argv: list[str]) -> int:
    """Run one trial; returns its exit code."""
    from quantnas_ext.sweeps.reporting import TrialChannel

    folder = SweepFolder(argv[0])
    sweep = folder.load()
    channel = TrialChannel()
    if sweep.architectures is None:
        trial = plan_trial(sweep, channel.parameters, folder.trials)
    else:
        from quantnas_ext.sweeps.architectures import architecture_trial

        trial = architecture_trial(sweep, channel.parameters, folder.trials)
    run = RunFolder(trial.config.run)
    print(f"run folder: {run}", flush=True)
    run.path.mkdir(parents=True, exist_ok=True)
    _link(run.path)
    record = folder.read(trial.name) or TrialRecord.of(trial, number=len(folder.records()))
    before = record.job == channel.job  # the same job, that NNI starts again
    sent = record.reported if before else 0
    record = dataclasses.replace(record, status="running", error="", job=channel.job, doing="begins")
    folder.write(dataclasses.replace(record, begun=time.time(), ended=0.0))
    try:
        with run_lock(run.path):
            figures = run_trial(folder, trial, channel, sent)
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        traceback.print_exc()
        folder.fail(trial.name, f"{type(error).__name__}: {error}" if not isinstance(error, InputError) else str(error))
        return 1
    channel.final({"default": figures["psnr"], **figures})
    folder.update(trial.name, status="done", ended=time.time(), doing="", figures=figures)
    return 0


def run_trial(folder: SweepFolder, trial: PlannedTrial, channel: Any, sent: int) -> dict[str, float]:
    """Find an architecture, train it and score it; what is done already is not done again.

    Args:
        folder: of the sweep.
        trial: with a run folder that this process holds.
        channel: to report the epochs on.
        sent: epochs that have been reported there already.

    Returns:
        Figures of the trained network and of how decided its search was.
    """
    from quantnas_ext.search.loop.epoch_record import EpochRecord
    from quantnas_ext.sr import evaluation_run
    from quantnas_ext.sweeps.methods import FINDERS, by_search
    from quantnas_ext.sweeps.reporting import EpochReports

    run, config = RunFolder(trial.config.run), trial.config
    count = 0

    def send(epoch: EpochRecord, figures: dict[str, float]) -> None:
        nonlocal count
        channel.intermediate(figures, sent)
        count += 1
        doing = f"search, epoch {epoch.epoch} of {config.search.epochs}"
        folder.update(trial.name, doing=doing, figures=figures, reported=max(count, sent))

    reports = EpochReports(run.path, send)
    if run.state != "found":
        folder.update(trial.name, doing="search")
        if trial.method == "architecture":
            from quantnas_ext.sweeps.architectures import write_architecture

            write_architecture(config, trial.parameters)
        else:
            FINDERS.get(trial.method, by_search)(config, folder.warmups, reports)
    folder.update(trial.name, doing="final training")
    train_found(config, run)
    folder.update(trial.name, doing="evaluation")
    scores = evaluation_run.evaluate(config, run, [TRAINING])[TRAINING]
    figures = {"psnr": scores["psnr"], "ssim": scores["ssim"], "bytes": scores["bytes"]}
    figures["bitops"] = scores["bitops_32"]
    return {name: float(value) for name, value in (figures | decidedness(run)).items()}


def train_found(config: Config, run: RunFolder) -> None:
    """Train the found network, or go on with that."""
    from quantnas_ext.sr.training import final_training
    from quantnas_ext.sr.training_run import train

    training = run.training(TRAINING)
    if training.state == "begun":
        final_training.train(["-opt", str(training.options), "--auto_resume"], quiet=True)
    elif training.state == "new":
        training.clear()
        train(config, str(run.architecture), None, training)


def decidedness(run: RunFolder) -> dict[str, float]:
    """Entropy in nats, and the probability of the least decided choice, at the epoch that was derived from."""
    from quantnas_ext.sweeps.reporting import least_decided

    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        epoch = json.loads(run.derived.read_text(encoding="utf-8"))["epoch"]
        epochs = json.loads(run.history.read_text(encoding="utf-8"))["epochs"]
        derived = next(record for record in epochs if record["epoch"] == epoch)
        return {"entropy": derived["entropy"], "least_decided": least_decided(derived)}
    return {}


def _link(run: Path) -> None:
    """Lay the run folder beside the log that the portal shows."""
    output = os.environ.get("NNI_OUTPUT_DIR")
    with contextlib.suppress(OSError):
        if output:
            (Path(output) / "run").symlink_to(run, target_is_directory=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
