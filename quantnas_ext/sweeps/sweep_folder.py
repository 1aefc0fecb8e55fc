"""What lies where in the folder of a sweep, and the record of every trial."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import atomic_file, write_text
from quantnas_ext.files.lock import run_lock
from quantnas_ext.files.paths import seen_from
from quantnas_ext.sweeps.planning import PlannedTrial
from quantnas_ext.sweeps.sweep_file import SweepConfig, load_sweep

JOBS_ENDED = ("SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")
"""What NNI says of jobs that have ended; it has many words for others."""

Status = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """``trial.json``: how a trial stands.

    Attributes:
        name: of its folder.
        method: how it comes to its architecture.
        seed: of all its random numbers.
        budget: most BitOps that it may have; None for no such budget.
        status: how far it is.
        error: why it failed; empty otherwise.
        parameters: what tells it from other trials.
        number: its place in the plan.
        job: NNI's id of it, by which the portal knows it.
        earlier: jobs of it that are over, as it was run again.
        begun, ended: when, in seconds since 1970; 0 where it has not.
        doing: what it does at the moment, in words.
        reported: epochs of which the job has told NNI.
        figures: what it has found, by name: ``psnr``, ``ssim``, ``bitops``, ``bytes``, ``entropy``, ``least_decided``.
    """

    name: str
    method: str
    seed: int
    budget: float | None
    status: Status = "waiting"
    error: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    number: int = 0
    job: str = ""
    earlier: list[str] = field(default_factory=list)
    begun: float = 0.0
    ended: float = 0.0
    doing: str = ""
    reported: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, trial: PlannedTrial, number: int) -> TrialRecord:
        """The record of a trial that waits."""
        config = trial.config
        budget = config.search.bitops_budget
        return cls(trial.name, trial.method, config.seed, budget, parameters=trial.parameters, number=number)


class SweepFolder:
    """The folder of a sweep.

    Attributes:
        path: the folder.
        sweep: the sweep's file, whole.
        trials: a run folder for each trial.
        warmups: run folders of warm-ups that trials share.
        nni: NNI's own files: database, logs, what trials print.
        portal: where the portal is and who runs it, while it runs; and the experiment's id.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.sweep = self.path / "sweep.yaml"
        self.trials = self.path / "trials"
        self.warmups = self.path / "warmups"
        self.nni = self.path / "nni"
        self.portal = self.path / "portal.json"

    def __str__(self) -> str:
        return str(self.path)

    def check_new(self) -> None:
        """Refuse a folder that holds something.

        Raises:
            InputError: saying how a sweep that is there goes on.
        """
        try:
            there, filled = self.path.exists(), self.path.is_dir() and any(self.path.iterdir())
            if there and not self.path.is_dir():
                raise InputError(f"sweep folder '{self}' is a file; name another folder")
            is_sweep = self.sweep.is_file()
        except (OSError, ValueError) as error:
            raise InputError(f"sweep folder '{self}' cannot be used ({error}); name another folder") from error
        if filled:
            more = f"; it goes on with: python recipes/sweep.py resume {self}" if is_sweep else ""
            raise InputError(f"sweep folder '{self}' is not empty; name another folder or delete this one first{more}")

    def load(self) -> SweepConfig:
        """The sweep that is here.

        Raises:
            InputError: there is none.
        """
        try:
            there = self.sweep.is_file()
        except (OSError, ValueError):
            there = False
        if not there:
            where = seen_from(self.path)
            raise InputError(f"'{self}' holds no sweep (no sweep.yaml){where}; name the folder of one")
        return load_sweep(str(self.sweep))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from running the sweep meanwhile."""
        with run_lock(self.path):
            yield

    def records(self) -> list[TrialRecord]:
        """The records of all trials, as planned; a damaged one is left out."""
        found = (self.read(path.name) for path in self.trials.iterdir()) if self.trials.is_dir() else iter(())
        return sorted((record for record in found if record), key=lambda record: (record.number, record.name))

    def read(self, name: str) -> TrialRecord | None:
        """A trial's record, if it has a whole one."""
        try:
            values = json.loads((self.trials / name / "trial.json").read_text(encoding="utf-8"))
            known = {option.name for option in dataclasses.fields(TrialRecord)}
            return TrialRecord(**{key: value for key, value in values.items() if key in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def write(self, record: TrialRecord) -> None:
        """Write a trial's record."""
        with atomic_file(self.trials / record.name / "trial.json", parents=True) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n", encoding="utf-8")

    def update(self, name: str, **changes: Any) -> TrialRecord | None:
        """Change some of a trial's record, if it has one."""
        record = self.read(name)
        if record is None:
            return None
        record = dataclasses.replace(record, **changes)
        self.write(record)
        return record

    def fail(self, name: str, error: str) -> None:
        """Note that a trial failed, and why."""
        self.update(name, status="failed", error=error, ended=time.time(), doing="")

    def state(self) -> dict[str, Any]:
        """What ``portal.json`` says; empty where there is none."""
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self.portal.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                return content
        return {}

    def write_state(self, **state: Any) -> None:
        """Write ``portal.json`` anew."""
        write_text(self.portal, json.dumps(state, indent=2) + "\n")

    def log(self, experiment: str, job: str, name: str = "trial.stderr") -> Path | None:
        """What a trial has printed, where it ran on this machine."""
        found = [*(self.nni / experiment / "environments").glob(f"*/trials/{job}/{name}")] if job else []
        return found[0] if found else None
