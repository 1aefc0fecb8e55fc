"""The tuner of a grid, which NNI runs in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import nni
from nni.tuner import Tuner

from quantnas_ext.sweeps.sweep_folder import JOBS_ENDED, SweepFolder


class PlannedTrials(Tuner):
    """Hands out the trials of a sweep that wait, each once, in their order.

    NNI's own grid search forgets, when an experiment goes on, which trials are running or have failed, and would run
    them twice. Here a trial's own record tells, and NNI's database which jobs NNI takes up by itself.

    Args:
        sweep: folder of the sweep.
    """

    def __init__(self, sweep: str) -> None:
        self._folder = SweepFolder(sweep)
        self._left: list[dict[str, Any]] = []

    def update_search_space(self, search_space: Any) -> None:
        """The experiment begins or goes on."""
        going_on = live_jobs(Path(os.environ["NNI_CHECKPOINT_DIRECTORY"]).parent / "db" / "nni.sqlite")
        waiting = (record for record in self._folder.records() if record.status != "done" and record.status != "failed")
        self._left = [record.parameters for record in waiting if record.parameters not in going_on]

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """The next trial."""
        if not self._left:
            raise nni.NoMoreTrialError("all trials of the sweep are under way")
        return self._left.pop(0)

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """A grid learns nothing from results."""

    def import_data(self, data: Any) -> None:
        """As ``receive_trial_result``."""


def live_jobs(database: Path) -> list[dict[str, Any]]:
    """Parameters of the jobs in NNI's database that have not ended, which NNI starts again by itself."""
    latest: dict[str, str] = {}
    parameters: dict[str, dict[str, Any]] = {}
    events = "select trialJobId, event, data from TrialJobEvent order by timestamp, rowid"
    address = f"{database.resolve().as_uri()}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
        for job, event, data in connection.execute(events):
            if data and event in ("WAITING", "RUNNING"):  # the first of them that NNI has seen of a job
                parameters[job] = json.loads(data)["parameters"]
            if event in ("WAITING", "RUNNING", *JOBS_ENDED):
                latest[job] = event
    return [given for job, given in parameters.items() if latest[job] not in JOBS_ENDED]
