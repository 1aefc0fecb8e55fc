"""The file of a latency table, read and checked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from quantnas_ext.errors import InputError, shown
from quantnas_ext.files.paths import is_file, seen_from

FORMAT = "quantnas-latency"
VERSION = 1
_KEYS = {"format", "version", "machine", "input_shape", "space", "times"}
_MACHINE: dict[str, type] = {"processor": str, "device": str, "threads": int, "torch": str}
_LARGEST_FILE = 20_000_000  # bytes; the largest real ones have some hundred thousand
_LONGEST_TIME = 1e9  # milliseconds


def read_latency_file(path: Path) -> dict[str, Any]:
    """The content of a latency table's file, as plain values of the right form.

    Returns:
        ``machine`` (``processor``, ``device``, ``threads``, ``torch``), ``input_shape``, ``space``, and ``times``: a
        list of ``{"choices": {label: value}, "milliseconds": number}``.

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
    wrong = _wrong(content)
    if wrong:
        raise InputError(f"latency table '{path}' is damaged ({wrong}); make it anew with recipes/measure_latency.py")
    return content


def _wrong(content: dict[str, Any]) -> str | None:
    """What is wrong with the form of a file's content, if anything."""
    if content.keys() != _KEYS:
        return f"its keys should be {', '.join(sorted(_KEYS))}"
    machine, shape, times = content["machine"], content["input_shape"], content["times"]
    if (
        not isinstance(machine, dict)
        or machine.keys() != _MACHINE.keys()
        or any(type(machine[key]) is not kind for key, kind in _MACHINE.items())
    ):
        return f"its machine should have {', '.join(_MACHINE)}"
    if not isinstance(shape, list) or len(shape) < 2 or not all(type(size) is int and size > 0 for size in shape):
        return "its input_shape should be a list of at least two whole numbers above 0"
    if not isinstance(content["space"], str):
        return "its space should be text"
    if not isinstance(times, list):
        return "its times should be a list"
    seen = set()
    for entry in times:
        if not isinstance(entry, dict) or entry.keys() != {"choices", "milliseconds"}:
            return "each of its times should have choices and milliseconds"
        choices, time = entry["choices"], entry["milliseconds"]
        if not isinstance(choices, dict) or not all(type(value) in (str, int) for value in choices.values()):
            return "choices should be a mapping of labels to names or whole numbers"
        if type(time) not in (int, float) or not (math.isfinite(time) and 0 <= time < _LONGEST_TIME):
            return f"{shown(time)} is no number of milliseconds"
        if frozenset(choices.items()) in seen:
            return f"it has two times for {shown(choices)}"
        seen.add(frozenset(choices.items()))
    return None
