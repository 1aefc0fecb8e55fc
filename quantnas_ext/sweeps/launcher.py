"""`python -m quantnas_ext.sweeps.launcher SWEEP [...]`: what NNI starts as a trial.

It starts `accelerate launch` in a group of processes of its own, and ends the whole group when it is told to, or when
NNI's server is no more. NNI by itself signals one process alone, and not always.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType

_PATIENCE = 3.5  # seconds for a trial to end; NNI gives the launcher 5


def main(argv: list[str]) -> int:
    """Launch one trial and wait for it; returns its exit code."""
    server = os.getppid()
    threads = os.environ.get("QUANTNAS_SWEEP_THREADS", "1")
    launch = ["accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no"]
    command = [sys.executable, "-m", *launch, "--dynamo_backend", "no", "-m", "quantnas_ext.sweeps.trial", argv[0]]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"}
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, note)
    trial = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    while trial.poll() is None and not told and os.getppid() == server:
        time.sleep(0.1)
    if trial.poll() is None:
        _end(trial)
        if told:  # so that NNI sees a trial that was cancelled rather than one that failed
            signal.signal(told[0], signal.SIG_DFL)
            os.kill(os.getpid(), told[0])
        return 1
    return trial.returncode


def _end(trial: subprocess.Popen[bytes]) -> None:
    """End the group of a trial."""
    os.killpg(trial.pid, signal.SIGTERM)
    try:
        trial.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(trial.pid, signal.SIGKILL)  # also what its first process has left behind
    except ProcessLookupError:
        pass
    trial.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
