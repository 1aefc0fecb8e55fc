"""One warm-up for all searches that differ in what they know of costs: it ends before they ask."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.runs.config import Config, DataConfig, SearchConfig, TrainConfig
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.search.result import SearchResult
from quantnas_ext.sr.search_run import search
from quantnas_ext.sweeps.reporting import EpochReports

_ENDED = "ended"
"""File that says that the checkpoint beside it is that of the warm-up's end."""

_GOALS = (
    "bitops_budget",
    "bitops_penalty",
    "bytes_budget",
    "bytes_penalty",
    "latency_budget",
    "latency_penalty",
    "costs",
)


def shared_warmup(config: Config, folder: Path) -> Config:
    """The warm-up of a search: without goals, and the same for all searches that may go on from it.

    Args:
        config: of a search.
        folder: of all warm-ups.
    """
    plain = SearchConfig()
    search = dataclasses.replace(config.search, **{goal: getattr(plain, goal) for goal in _GOALS}, top_k=plain.top_k)
    data = dataclasses.replace(config.data, test=DataConfig().test)
    warmup = dataclasses.replace(config, run="", data=data, search=search, train=TrainConfig())
    content = json.dumps(dataclasses.asdict(warmup), sort_keys=True)
    return dataclasses.replace(warmup, run=str(folder / hashlib.sha256(content.encode()).hexdigest()[:16]))


def search_from_shared_warmup(config: Config, folder: Path, reports: EpochReports) -> SearchResult | None:
    """Search as a configuration says, or go on with that, from a warm-up that other searches have perhaps done.

    The result is that of a search on its own, to the bit.

    Args:
        config: of the search.
        folder: of all warm-ups; one process at a time runs one of them, others wait for it.
        reports: told of every epoch.
    """
    run, epochs = RunFolder(config.run), config.search.warmup_epochs
    if epochs and not run.checkpoint.exists():
        shared = shared_warmup(config, folder)
        there = RunFolder(shared.run)
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f"{there.path.name}.lock"):
            ended = there.path / _ENDED
            if not ended.exists():
                print(f"warm-up of {epochs} epochs for all searches of this method and seed: {there}", flush=True)
                own = EpochReports(there.path, reports.send)
                reports.told = own.told
                search(shared, resume=there.configured, watcher=own, until=epochs)
                ended.touch()
            else:
                print(f"going on from the warm-up in {there}", flush=True)
        run.path.mkdir(parents=True, exist_ok=True)
        reports.take(there.path)
        with atomic_file(run.checkpoint) as temporary:
            shutil.copyfile(there.checkpoint, temporary)
    return search(config, resume=bool(run.content()), watcher=reports)


def _alone(path: Path) -> FileLock:
    """A lock that is waited for."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
        lock.release()
    except Timeout:
        print("waiting for another trial's warm-up of the same search", flush=True)
    return lock
