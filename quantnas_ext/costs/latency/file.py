"""The file of a latency table, read and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from quantnas_ext.arguments import shape
from quantnas_ext.costs.latency.processor import Machine
from quantnas_ext.errors import InputError, shown
from quantnas_ext.files.paths import is_file, seen_from
from quantnas_ext.files.schema import build

FORMAT = "quantnas-latency"
VERSION = 1
_LARGEST_FILE = 20_000_000  # bytes; the largest real ones have some hundred thousand
_LONGEST_TIME = 1e9  # milliseconds


@dataclass(frozen=True)
class TimedChoices:
    """One time of a table: the milliseconds that some choices, label to value, take together."""

    choices: dict[str, str | int]
    milliseconds: float = field(metadata={"range": {"least": 0, "below": _LONGEST_TIME}})


@dataclass(frozen=True)
class LatencyFile:
    """What the file of a latency table holds, see ``LatencyTable``."""

    format: str
    version: int
    machine: Machine
    input_shape: list[int]
    space: str
    times: list[TimedChoices]


def read_latency_file(path: Path) -> LatencyFile:
    """The content of a latency table's file.

    Raises:
        InputError: when the file is missing, damaged, of another version or no latency table.
    """
    if not is_file(path):
        raise InputError(
            f"latency table '{path}' does not exist{seen_from(path)}; make it with recipes/measure_latency.py"
        )
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"'{path}' is not a latency table, or is damaged; give a file of recipes/measure_latency.py"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"'{path}' is not a latency table; give a file of recipes/measure_latency.py")
    if type(content.get("version")) is not int or content["version"] != VERSION:
        raise InputError(
            f"latency table '{path}' has version {shown(content.get('version'))}; this program reads version {VERSION}"
        )
    try:
        table = build(LatencyFile, content)
        shape("input_shape", table.input_shape)
        seen = set()
        for time in table.times:
            if frozenset(time.choices.items()) in seen:
                raise InputError(f"it has two times for {shown(time.choices)}")
            seen.add(frozenset(time.choices.items()))
    except (InputError, TypeError) as error:  # the latter where a key is missing
        raise InputError(
            f"latency table '{path}' is damaged ({error}); make it anew with recipes/measure_latency.py"
        ) from error
    return table
