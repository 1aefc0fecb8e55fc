"""Jobs are run, several at a time, and their results kept."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from benchmarks.judge.jobs import ROOT, collect, commands
from benchmarks.judge.plan import Job, Plan, Settings

GUESS = {"search": 400.0, "training": 400.0, "ranking": 600.0, "draw": 30.0, "hand": 120.0}
"""Seconds of a job of which none is done yet."""


def load_results(folder: Path) -> dict[str, dict[str, Any]]:
    """All kept results by their keys."""
    contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {content["key"]: content["result"] for content in contents}


class Runner:
    """Runs the command lines of jobs, with one thread each.

    Args:
        work: Scratch folder.
        data: Folder of the prepared images.
    """

    def __init__(self, work: Path, data: Path) -> None:
        self.work, self.data = work, data
        self.stopped = False
        self.processes: set[subprocess.Popen[bytes]] = set()

    def __call__(self, job: Job) -> dict[str, Any]:
        """A job's result with the seconds it took; its folder is removed once it is done.

        Raises:
            RuntimeError: A command failed; the message has the end of what it wrote.
        """
        folder = self.work / "jobs" / job.key
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        begin, cpu = time.monotonic(), 0.0
        for command in commands(job, folder, self.data):
            cpu += self._run([sys.executable, *command], folder / "log.txt")
        result = collect(job, folder) | {"cpu_seconds": round(cpu, 1), "seconds": round(time.monotonic() - begin, 1)}
        shutil.rmtree(folder)
        return result

    def _run(self, command: list[str], log: Path) -> float:
        """Run one command line to its end; seconds of CPU time of it and of what it started."""
        own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        with log.open("ab") as out:
            started = {"stdout": out, "stderr": out, "env": os.environ | own, "cwd": ROOT, "start_new_session": True}
            process = subprocess.Popen(command, **started)
            self.processes.add(process)
            if self.stopped:
                self.stop()
            _, status, usage = os.wait4(process.pid, 0)
            self.processes.discard(process)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            end = "\n".join(log.read_text(errors="replace").replace("\r", "\n").splitlines()[-15:])
            raise RuntimeError(f"{' '.join(command[:3])} ... ended with {process.returncode}:\n{end}")
        return usage.ru_utime + usage.ru_stime

    def stop(self) -> None:
        """End everything that runs, and what is started from now on."""
        self.stopped = True
        for process in list(self.processes):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGKILL)


def run_all(settings: Settings, results: Path, runner: Runner, jobs: int) -> list[str]:
    """Run what is not done yet, so many jobs at a time, and keep every result.

    Returns:
        Titles of the jobs that failed; what hangs on them is not run.
    """
    results.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    running: dict[Future[dict[str, Any]], Job] = {}
    done = load_results(results)
    seconds: dict[str, list[float]] = {kind: [] for kind in GUESS}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while True:
                busy = {job.key for job in running.values()} | failed.keys()
                ready = [job for job in Plan(settings, done).jobs if job.key not in busy]
                for job in ready[: jobs - len(running)]:
                    running[pool.submit(runner, job)] = job
                if not running:
                    return list(failed.values())
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    try:
                        result = future.result()
                    except Exception as error:  # the other jobs go on
                        failed[job.key] = f"{job.kind} {job.title}"
                        print(f"failed: {job.kind} {job.title}: {error}", flush=True)
                        continue
                    kept = {"key": job.key, "kind": job.kind, "title": job.title, "depends": job.depends}
                    path = results / f"{job.kind}-{job.key}.json"
                    path.with_suffix(".partial").write_text(json.dumps(kept | {"result": result}) + "\n")
                    path.with_suffix(".partial").replace(path)
                    done[job.key] = result
                    seconds[job.kind].append(result["seconds"])
                    left = _left(Plan(settings, done), seconds, jobs)
                    print(f"{job.kind} {job.title}: {result['seconds']:.0f} s; {left}", flush=True)
        finally:
            runner.stop()


def _left(plan: Plan, seconds: Mapping[str, Sequence[float]], jobs: int) -> str:
    """How much there is to do still, and about how long that takes."""
    counts = plan.later + Counter(job.kind for job in plan.jobs)
    each = {kind: statistics.fmean(seconds[kind] or [GUESS[kind]]) for kind in counts}
    hours = sum(number * each[kind] for kind, number in counts.items()) / jobs / 3600
    return f"{sum(counts.values())} jobs and about {hours:.1f} h left"
