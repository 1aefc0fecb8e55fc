"""Timing: interleaved rounds, medians, an end."""

import time

import pytest
import torch

from quantnas_ext.costs.latency import stopwatch

CPU = torch.device("cpu")


def test_times_are_medians_of_rounds_in_which_every_run_has_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []

    def run(index: int, seconds: float) -> None:
        slow = len(calls) in (20, 21)  # the machine is busy for a moment
        calls.append(index)
        clock[0] += seconds * (50 if slow else 1)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    runs = [lambda i=i: run(i, 1e-3 * (i + 1)) for i in range(3)]
    assert stopwatch.median_times(runs, CPU, 10, 60.0) == pytest.approx([1.0, 2.0, 3.0])
    turns = [calls[index : index + 3] for index in range(0, len(calls), 3)]
    assert len(turns) == stopwatch.WARM_UP + 10 and all(sorted(turn) == [0, 1, 2] for turn in turns)
    assert len(set(map(tuple, turns))) > 1
    calls.clear()
    stopwatch.median_times(runs, CPU, 10, seconds=0.0)
    assert len(calls) == 3 * (stopwatch.WARM_UP + stopwatch.FEWEST)
