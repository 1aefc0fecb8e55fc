"""A sweep from its start to its end, or to where it is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import psutil

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import check_writable
from quantnas_ext.runs.config import load_config, save_config
from quantnas_ext.runs.library_messages import keep_messages
from quantnas_ext.sweeps.checking import planned
from quantnas_ext.sweeps.experiment import experiment_config, share_of_cores
from quantnas_ext.sweeps.listening import family
from quantnas_ext.sweeps.portal import Portal, PortalFailure, end_all
from quantnas_ext.sweeps.progress import SweepProgress, counts_text, front_table
from quantnas_ext.sweeps.sweep_file import SweepConfig, save_sweep
from quantnas_ext.sweeps.sweep_folder import JOBS_ENDED, SweepFolder, TrialRecord

if TYPE_CHECKING:
    from quantnas_ext.sweeps.architectures import Exploration

_POLL = 0.5  # seconds between two looks at the server
_LOG_LINES = 5
_TUNER_PATIENCE = 10  # seconds; tuners say that there are no more trials when they wait for a result


class SweepRun:
    """One run of a sweep's NNI experiment, from a start or a resumption to an end or an interruption.

    Args:
        folder: of the sweep, which this process holds.
        sweep: what it is.
        experiment: NNI's id of it.
        port: of the portal.
        public: have the portal listen on every interface.
    """

    def __init__(self, folder: SweepFolder, sweep: SweepConfig, experiment: str, port: int, *, public: bool) -> None:
        self.folder, self.sweep, self.experiment = folder, sweep, experiment
        self.port, self.public = port, public

    def run(self, action: Literal["create", "resume"]) -> list[TrialRecord]:
        """Run until every trial has ended; the records of all of them.

        Raises:
            InputError: the portal cannot be kept to the loopback interface, or its port is in use.
            PortalFailure: NNI's server has ended.
            KeyboardInterrupt: stopped by Ctrl-C, SIGTERM or a terminal that was closed.
        """
        folder, sweep = self.folder, self.sweep
        trials = len(folder.records()) if sweep.grid else sweep.trials or 0
        concurrency, threads = share_of_cores(sweep, trials)
        os.environ["QUANTNAS_SWEEP_THREADS"] = str(threads)
        config = experiment_config(sweep, folder, concurrency)
        channel = None if sweep.architectures is None else f"ws://localhost:{self.port}/tuner"
        portal = Portal(folder.nni, self.experiment, self.port, action, public=self.public, tuner_channel=channel)
        exploration: Exploration | None = None
        title = f"sweep {folder}: portal {portal.url}, {concurrency} at a time with {threads} thread(s) each"
        progress = SweepProgress(title, concurrency, trials)
        told = {"experiment": self.experiment, "folder": str(folder), "port": self.port}
        with _interruptible(), keep_messages(folder.path):
            try:
                portal.start()
                processes = {"server": identity(portal.pid), "runner": identity(os.getpid())}
                folder.write_state(**told, **processes)
                portal.request("POST", "/experiment", config)
                print(f"{title}\nNNI's experiment {self.experiment}", flush=True)
                if sweep.architectures is not None:
                    from quantnas_ext.sweeps.architectures import Exploration, base_config

                    exploration = Exploration(sweep, base_config(sweep, folder.trials), portal)
                self._follow(portal, progress, exploration)
            finally:
                portal.stop()
                if exploration is not None:
                    exploration.close()
                folder.write_state(**told)
                for record in folder.records():
                    if record.status == "running":  # what was stopped goes on when the sweep does
                        folder.update(record.name, status="waiting", doing="")
        progress.show(folder.records(), last=True)
        return folder.records()

    def _follow(self, portal: Portal, progress: SweepProgress, exploration: Exploration | None) -> None:
        """Look at the experiment until it has ended."""
        idle_since = None
        while True:
            portal.check()
            jobs = portal.get("/trial-jobs")
            status = portal.get("/check-status")
            self._note_ended(jobs)
            records = self.folder.records()
            progress.show(records)
            if status["status"] in ("ERROR", "STOPPED"):
                raise PortalFailure(f"NNI has stopped the experiment: {'; '.join(status['errors'])[:500]}")
            live = [job for job in jobs if job["status"] not in JOBS_ENDED]
            if live or (self.sweep.grid and any(record.status in ("waiting", "running") for record in records)):
                idle_since = None
            elif status["status"] == "DONE" or (self.sweep.grid and records):
                return
            elif exploration is not None and exploration.ended:
                if exploration.failure is not None:
                    raise PortalFailure(f"NNI's strategy has ended: {exploration.failure}") from exploration.failure
                return
            elif status["status"] == "TUNER_NO_MORE_TRIAL":
                idle_since = idle_since or time.monotonic()
                if time.monotonic() - idle_since > _TUNER_PATIENCE:
                    return
            time.sleep(_POLL)

    def _note_ended(self, jobs: list[dict[str, Any]]) -> None:
        """Note the trials of which NNI knows that they have ended, and that could not say so themselves."""
        by_job = {record.job: record for record in self.folder.records()}
        for job in jobs:
            known = job["trialJobId"]
            if job["status"] not in JOBS_ENDED or not job.get("hyperParameters"):
                continue
            record = by_job.get(known)
            if record is None:
                trial = planned(self.sweep, job_parameters(job), self.folder.trials)
                number = int(job.get("sequenceId", 0)) + 1
                record = self.folder.read(trial.name) or TrialRecord.of(trial, number)
            if record.status in ("done", "failed") or known in record.earlier or record.job not in ("", known):
                continue
            last = " / ".join(last_lines(self.folder, self.experiment, known, 3))
            error = f"it has ended as {job['status']}" + (f": {last}" if last else " without a word")
            self.folder.write(dataclasses.replace(record, status="failed", error=error, job=known, doing=""))


def job_parameters(job: dict[str, Any]) -> dict[str, Any]:
    """The parameters of one of NNI's jobs."""
    given = job["hyperParameters"][0]
    parameters: dict[str, Any] = (json.loads(given) if isinstance(given, str) else given)["parameters"]
    return parameters


def last_lines(folder: SweepFolder, experiment: str, job: str, count: int = _LOG_LINES) -> list[str]:
    """The last lines that a trial has printed on standard error, or otherwise; none where it ran elsewhere."""
    for name in ("trial.stderr", "trial.log"):
        path = folder.log(experiment, job, name)
        if path is None:
            continue
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 20_000))
            text = file.read().decode("utf-8", errors="replace").replace("\r", "\n")
            lines = [line.rstrip() for line in text.splitlines() if line.strip()]
            if lines:
                return lines[-count:]
    return []


def summary(folder: SweepFolder, records: list[TrialRecord], experiment: str) -> str:
    """How a sweep has ended: the front, and every failed trial with the end of what it has printed."""
    lines = [counts_text(records)]
    if table := front_table(records):
        lines += ["front:", table]
    for record in records:
        if record.status != "failed":
            continue
        log = folder.log(experiment, record.job)
        lines += [f"failed: {record.name}: {record.error}", f"  run folder {folder.trials / record.name}"]
        lines += [f"  log {log}"] if log else []
        lines += [f"  | {line}" for line in last_lines(folder, experiment, record.job)]
    if any(record.status == "failed" for record in records):
        lines.append(f"to run what has failed again: python recipes/sweep.py resume {folder} --failed")
    return "\n".join(lines)


def make_folder(sweep: SweepConfig, folder: SweepFolder, records: list[TrialRecord]) -> SweepConfig:
    """Make the folder of a sweep: its file, its configuration as it is now, and a record for each trial that waits.

    Returns:
        The sweep as it is in the folder.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    check_writable(folder.path)
    base = folder.path / "configuration.yaml"
    save_config(load_config(sweep.config, sweep.set), base)
    concurrency, threads = share_of_cores(sweep, len(records) or sweep.trials or 1)
    # With the same threads in all its trials, as sums depend on them in their last bits.
    sweep = dataclasses.replace(
        sweep, run=str(folder), config=str(base), set=[], threads=threads, concurrency=concurrency
    )
    for record in records:
        folder.write(record)
    save_sweep(sweep, folder.sweep)
    return sweep


def experiment_of(folder: SweepFolder) -> str:
    """NNI's id of the experiment in a sweep's folder.

    Raises:
        InputError: there is none that could go on.
    """
    state = folder.state()
    experiment = str(state.get("experiment", ""))
    if not experiment or not (folder.nni / experiment / "db" / "nni.sqlite").is_file():
        what = f"experiment '{experiment}' does not exist there" if experiment else "no experiment was begun there"
        raise InputError(f"sweep '{folder}' cannot go on: {what}; delete the folder and start the sweep anew")
    if state.get("folder") != str(folder):
        raise InputError(
            f"sweep '{folder}' was moved from '{state.get('folder')}', where NNI goes on looking for it; move it back"
        )
    return experiment


def again(folder: SweepFolder) -> None:
    """Let the trials that have failed wait for another run."""
    for record in folder.records():
        if record.status == "failed":
            earlier = [*record.earlier, *([record.job] if record.job else [])]
            folder.write(dataclasses.replace(record, status="waiting", error="", job="", earlier=earlier, reported=0))


@contextlib.contextmanager
def shown(folder: SweepFolder, sweep: SweepConfig, port: int) -> Iterator[Portal]:
    """The portal of a sweep that does not run, which only shows."""
    portal = Portal(folder.nni, experiment_of(folder), port, "view")
    with _interruptible():
        try:
            portal.start()
            portal.request("POST", "/experiment", experiment_config(sweep, folder, 1))
            yield portal
        finally:
            portal.stop()


def new_experiment() -> str:
    """An id for an experiment."""
    return secrets.token_hex(4)


def identity(pid: int | None) -> list[float]:
    """What tells a process from later ones with its id: id and time of creation; empty for none."""
    with contextlib.suppress(psutil.Error):
        if pid is not None:
            return [pid, psutil.Process(pid).create_time()]
    return []


def process_of(told: Any) -> psutil.Process | None:
    """The process of an ``identity``, if it still runs."""
    if not isinstance(told, list) or len(told) != 2:
        return None
    with contextlib.suppress(psutil.Error, ValueError, TypeError):
        process = psutil.Process(int(told[0]))
        if process.is_running() and abs(process.create_time() - told[1]) < 0.1:
            return process
    return None


def stop_sweep(folder: SweepFolder) -> bool:
    """Stop a sweep that another process runs, as Ctrl-C there would, and wait until nothing of it runs.

    Returns:
        Whether there was something to stop.
    """
    state = folder.state()
    runner, server = process_of(state.get("runner")), process_of(state.get("server"))
    left = {process for top in (runner, server) if top is not None for process in family(top)}
    if runner is not None:
        runner.terminate()  # which it takes for Ctrl-C
        with contextlib.suppress(psutil.TimeoutExpired):
            runner.wait(40)
    end_all(left)
    return bool(left)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make of SIGTERM, and of a terminal that is closed, what Ctrl-C is."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
