"""What a sweep shows of itself."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest

from quantnas_ext.sweeps.progress import SweepProgress, front, seconds_left
from quantnas_ext.sweeps.sweep_folder import TrialRecord


def record(name: str, status: Any, psnr: float = 0.0, bitops: float = 0.0, **more: Any) -> TrialRecord:
    figures = {"psnr": psnr, "ssim": 0.9, "bitops": bitops, "bytes": 4e4} if psnr else {}
    return TrialRecord(name, "noise", 0, None, status, **{"figures": figures, **more})


DONE = [
    record("cheap", "done", 30, 1e9, begun=100.0, ended=160.0),
    record("good", "done", 33, 3e9, begun=160.0, ended=240.0),
    record("worse", "done", 29, 2e9),
    record("dearer", "done", 33, 4e9),
]


def test_the_front_is_what_no_other_trial_beats() -> None:
    assert [one.name for one in front(DONE)] == ["cheap", "good"]
    assert front([record("x", "running")]) == []


def test_time_left_goes_by_the_trials_that_are_done() -> None:
    assert seconds_left([record("x", "running", begun=1.0)], 1, 2, 10.0) is None
    running = record("now", "running", begun=300.0)
    assert seconds_left([*DONE, running], 1, 7, 320.0) == pytest.approx(50 + 2 * 70)
    assert seconds_left([*DONE, running], 2, 7, 320.0) == pytest.approx((50 + 2 * 70) / 2)
    assert seconds_left(DONE, 2, 4, 320.0) == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_screen_fits_its_terminal_whatever_the_number_of_trials() -> None:
    records = [
        *DONE,
        record("broken", "failed", error="no\x1b[31m photographs"),
        record("now", "running", doing="search"),
    ]
    records += [record(f"later_{number}", "waiting") for number in range(300)]
    progress = SweepProgress("sweep x: portal y", 2, len(records), Terminal())
    for columns, lines in ((80, 24), (40, 12), (200, 60)):
        screen = progress.screen(records, columns, lines).splitlines()
        assert len(screen) < lines and max(map(len, screen)) <= columns
        text = "\n".join(screen)
        assert "300 waiting, 1 running, 4 done, 1 failed" in text or columns == 40
        assert "running now" in text and "\x1b" not in text
    assert "failed  broken: no\\x1b[31m photographs" in text and "front so far" in text and "good" in text
    progress.show(records)
    assert progress.stream.getvalue().startswith("\x1b[H\x1b[J")


def test_without_a_terminal_every_change_is_one_line() -> None:
    stream = io.StringIO()
    progress = SweepProgress("sweep", 1, 3, stream)
    first = record("a", "running", begun=time.time())
    for records in ([first, record("b", "waiting")], [first, record("b", "waiting")], [DONE[0], record("b", "failed")]):
        progress.show(records)
    lines = stream.getvalue().splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d (\w+) +(\w+).*", r"\1 \2", line) for line in lines] == [
        "running a",
        "done cheap",
        "failed b",
    ]
    assert "30.00 dB, 1.00 G BitOps (0 waiting, 0 running, 1 done, 1 failed" in lines[1]
