"""How many CPU threads a process takes, beside whatever else the machine is doing.

Results depend on the number of threads in their last bits, as sums are split among them: what repeats a run to the bit
is the same number. It is chosen once, before a run's first step, and kept in the run folder for when the run goes on.

torch and joblib are imported where they are called, since this module is loaded before a configuration is checked.
"""

from __future__ import annotations

import json
import os
import statistics
import timeit
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from quantnas_ext.files.atomic import atomic_file

THREADS_NAME = "threads.json"
"""The choice of a run, in its folder."""

_WINDOW = 0.4  # seconds over which other work on the cores is looked at

_BUSY = 0.5  # share of that time from which on a core counts as taken by others

_ROUNDS = 4  # trial steps with each number of threads, after one to warm up

_GAIN = 0.9  # more threads must bring a step down to this share of its time with one


@dataclass(frozen=True)
class Threads:
    """A number of threads, and why it is that.

    Attributes:
        count: CPU threads of the process.
        because: the reason, in words.
    """

    count: int
    because: str

    def __str__(self) -> str:
        return f"{self.count} thread{'s' if self.count > 1 else ''} of {available_cores()[1]}: {self.because}"


def available_cores() -> tuple[int, str]:
    """The cores that this process may use, and what says so.

    That is the machine's cores, or those of the process's affinity or of its container's CPU limit, divided among the
    processes that a launcher started here; ``OMP_NUM_THREADS`` lowers it where the user has set it. ``accelerate
    launch`` and ``torchrun`` set it to 1 by themselves, which does not count.
    """
    import joblib

    cores = joblib.cpu_count()
    local = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    share = max(1, cores // local)
    said = f"{cores} core{'s' if cores > 1 else ''}"
    if local > 1:
        said += f" for {local} processes"
    wanted = _wanted_threads()
    if wanted is not None and wanted < share:
        return wanted, f"{said}, OMP_NUM_THREADS {wanted}"
    return share, said


def free_cores(cores: int) -> int:
    """How many of so many cores other processes leave free at the moment, 0 to ``cores``; takes under half a second."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # macOS, Windows
        allowed = set(range(os.cpu_count() or 1))
    busy = psutil.cpu_percent(interval=_WINDOW, percpu=True)
    free = sum(percent < 100 * _BUSY for core, percent in enumerate(busy) if core in allowed)
    return min(cores, free)


def set_threads(threads: int | None) -> None:
    """Set the CPU threads of this process, which ``accelerate launch`` leaves with one.

    None stands for one on every core that the process may use (``available_cores``).
    """
    import torch

    torch.set_num_threads(threads or available_cores()[0])


def choose_threads(folder: Path | None = None, step: Callable[[], object] | None = None) -> Threads:
    """Set the threads of this process by what the machine has free and by what they bring, and print why.

    Args:
        folder: a run folder: the choice that an earlier part of the run has made there is kept, a new one is written.
        step: a step of the work ahead, without any effect on it. More than one thread is taken only if that makes it
            faster by a tenth; without it every free core gets one.

    Raises:
        WriteError: the choice cannot be written.
    """
    import torch

    chosen = _kept(folder) or _choice(step)
    torch.set_num_threads(chosen.count)
    print(chosen, flush=True)
    if folder is not None:
        with atomic_file(folder / THREADS_NAME) as temporary:
            temporary.write_text(json.dumps(asdict(chosen), indent=2) + "\n", encoding="utf-8")
    return chosen


def _choice(step: Callable[[], object] | None) -> Threads:
    import torch

    cores, _ = available_cores()
    if cores == 1:
        return Threads(1, "there are no more for this process")
    free = free_cores(cores)
    if free <= 1:
        return Threads(1, f"other programs leave {free} free")
    if step is None or torch.cuda.is_available():
        return Threads(free, f"{free} free")
    seconds = {count: _time(step, count) for count in (1, free)}
    times = f"a step takes {1e3 * seconds[free]:.0f} ms with {free} and {1e3 * seconds[1]:.0f} with 1"
    return Threads(free if seconds[free] <= _GAIN * seconds[1] else 1, f"{free} free, {times}")


def _time(step: Callable[[], object], count: int) -> float:
    """Median seconds of a step."""
    import torch

    torch.set_num_threads(count)
    step()
    return statistics.median(timeit.repeat(step, number=1, repeat=_ROUNDS))


def _kept(folder: Path | None) -> Threads | None:
    """What an earlier part of the run has chosen; a damaged file counts as none."""
    if folder is None or not (folder / THREADS_NAME).is_file():
        return None
    try:
        count = json.loads((folder / THREADS_NAME).read_text(encoding="utf-8"))["count"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if type(count) is not int or not 1 <= count <= 4096:
        return None
    return Threads(count, "as this run began, so that it ends as if it had never stopped")


def _wanted_threads() -> int | None:
    """The user's own ``OMP_NUM_THREADS`` (the first of a list), if there is one."""
    value = _first(os.environ.get("OMP_NUM_THREADS"))
    launched = any(name.startswith(("ACCELERATE_", "TORCHELASTIC_")) for name in os.environ)
    return value if not (launched and value == 1) else _first(_launchers_setting())


def _launchers_setting() -> str | None:
    """``OMP_NUM_THREADS`` as the launcher itself was started with, where the system tells."""
    try:
        return psutil.Process(os.getppid()).environ().get("OMP_NUM_THREADS")
    except (psutil.Error, OSError):
        return None


def _first(value: str | None) -> int | None:
    first = (value or "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None
