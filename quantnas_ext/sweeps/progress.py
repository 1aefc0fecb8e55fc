"""How a sweep stands: one screen of a terminal, or lines where there is none."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from quantnas_ext.errors import printable
from quantnas_ext.reporting.table import PSNR, SSIM, Column, decimals, format_table, si_prefix
from quantnas_ext.sweeps.sweep_folder import TrialRecord

_CLEAR = "\x1b[H\x1b[J"
_COLUMNS = [Column("name", "trial"), PSNR, SSIM, Column("bitops", "BitOps at 32 × 32", si_prefix())]
_COLUMNS += [Column("bytes", "parameters", si_prefix("B")), Column("least_decided", "least decided", decimals(2))]


def front(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that are done and that no other one beats in PSNR without more BitOps, the cheapest first."""
    done = [record for record in records if record.status == "done" and {"psnr", "bitops"} <= record.figures.keys()]
    best, found = float("-inf"), []
    for record in sorted(done, key=lambda one: (one.figures["bitops"], -one.figures["psnr"])):
        if record.figures["psnr"] > best:
            best = record.figures["psnr"]
            found.append(record)
    return found


def counts_text(records: Sequence[TrialRecord]) -> str:
    """``2 waiting, 1 running, 3 done, 0 failed``."""
    stands = [record.status for record in records]
    return ", ".join(f"{stands.count(status)} {status}" for status in ("waiting", "running", "done", "failed"))


def seconds_left(records: Sequence[TrialRecord], concurrency: int, trials: int, now: float) -> float | None:
    """Seconds until all trials have ended, by those that have; None before one has.

    Args:
        records: of all trials so far.
        concurrency: trials at a time.
        trials: how many there will be.
        now: seconds since 1970.
    """
    took = [
        record.ended - record.begun for record in records if record.status == "done" and record.ended > record.begun > 0
    ]
    if not took:
        return None
    each = statistics.fmean(took)
    running = [max(0.0, each - (now - record.begun)) for record in records if record.status == "running"]
    ended = sum(record.status in ("done", "failed") for record in records)
    waiting = max(0, trials - ended - len(running))
    return (sum(running) + waiting * each) / max(1, min(concurrency, waiting + len(running)))


def duration_text(seconds: float | None) -> str:
    """``about 5 min``, ``about 40 s``, or that nobody knows yet."""
    if seconds is None:
        return "time left is known once a trial is done"
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"


def front_table(records: Sequence[TrialRecord]) -> str:
    """The front so far as a table; empty before a trial is done."""
    rows = [{"name": record.name, **record.figures} for record in front(records)]
    known = [column for column in _COLUMNS if any(column.key in row for row in rows)]
    return format_table(rows, known) if rows else ""


class SweepProgress:
    """Shows how a sweep stands, whenever it is told.

    Args:
        title: the sweep's folder and portal.
        concurrency: trials at a time.
        trials: how many there will be.
        stream: where to; a terminal gets a screen that changes, anything else a line for each change.
    """

    def __init__(self, title: str, concurrency: int, trials: int, stream: TextIO | None = None) -> None:
        self.title, self.concurrency, self.trials = title, concurrency, trials
        self.stream = stream or sys.stdout
        self._told: dict[str, str] = {}
        self._screen = self.stream.isatty()
        self._drawn = 0.0

    def show(self, records: Sequence[TrialRecord], *, last: bool = False) -> None:
        """Show the trials' records; ``last``: whatever was shown a moment ago."""
        if not self._screen:
            self._lines(records)
        elif last or time.monotonic() - self._drawn > 0.9:
            self._drawn = time.monotonic()
            self.stream.write(_CLEAR + self.screen(records, *shutil.get_terminal_size()) + "\n")
            self.stream.flush()

    def screen(self, records: Sequence[TrialRecord], columns: int, lines: int) -> str:
        """The screen, which fits so many columns and lines."""
        left = seconds_left(records, self.concurrency, self.trials, time.time())
        head = [*self.title.splitlines(), f"{counts_text(records)} of {self.trials}; {duration_text(left)}", ""]
        table = front_table(records)
        tail = ["", "front so far:", *table.splitlines()] if table else []
        room = max(1, lines - 1 - len(head) - len(tail))
        if room < len(records) and len(tail) > lines // 2:
            tail = tail[: lines // 2]
            room = max(1, lines - 1 - len(head) - len(tail))
        order = {"running": 0, "failed": 1, "waiting": 2, "done": 3}
        shown = [_line(record) for record in sorted(records, key=lambda record: order[record.status])]
        if len(shown) > room:
            shown = [*shown[: room - 1], f"... and {len(shown) - room + 1} more"]
        return "\n".join(line[:columns] for line in (*head, *shown, *tail))

    def _lines(self, records: Sequence[TrialRecord]) -> None:
        for record in records:
            if record.status != self._told.get(record.name, "waiting"):
                self._told[record.name] = record.status
                left = seconds_left(records, self.concurrency, self.trials, time.time())
                clock = time.strftime("%H:%M:%S")
                self.stream.write(f"{clock} {_line(record)} ({counts_text(records)}; {duration_text(left)})\n")
                self.stream.flush()


def _line(record: TrialRecord) -> str:
    """A trial in a line."""
    if record.status == "failed":
        more = f": {record.error}"
    elif record.status == "done":
        figures = record.figures
        more = f": {figures.get('psnr', 0):.2f} dB, {si_prefix()(figures.get('bitops', 0))} BitOps"
    elif record.status == "running":
        loss = "".join(
            f", {name.replace('_', ' ')} {record.figures[name]:.3g}"
            for name in ("train_loss", "expected_bitops", "entropy", "least_decided")
            if name in record.figures
        )
        more = f": {record.doing}{loss}" if record.doing else ""
    else:
        more = ""
    return printable(f"{record.status:8}{record.name}{more}")
