"""Latency as a cost: a table of times measured on the machine at hand, kept in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantnas_ext.arguments import real_number, shape, whole_number
from quantnas_ext.costs.cost import Cost, register_cost
from quantnas_ext.costs.latency.file import FORMAT, VERSION, read_latency_file
from quantnas_ext.costs.latency.processor import Machine
from quantnas_ext.costs.latency.segments import Parts, cut_space
from quantnas_ext.costs.latency.stopwatch import median_times
from quantnas_ext.distribution.choices import Context
from quantnas_ext.errors import InputError, printable, shown
from quantnas_ext.files.atomic import atomic_file

REMEDY = "measure a table with: python recipes/measure_latency.py --config NAME|FILE --output FILE"


@register_cost
@dataclass(frozen=True, kw_only=True)
class LatencyTable(Cost):
    """Milliseconds of an architecture: the sum of the times of its candidates and of what is always there.

    Every candidate of every block was timed by itself on the input that it gets within the space, and so was the space
    without its candidates' time (skips, normalisation, fixed layers, pixel shuffle). A choice that several places share
    has the sum of its places' times. What is timed is the float network in evaluation mode, in 32-bit kernels and with
    quantizers off: simulated rounding takes time that no deployed network takes, and does not run faster at 4 bits than
    at 8. So the time of a candidate is the same at all its precisions, and a penalty or budget on latency decides
    between operations only; BitOps or bytes are for the precisions. Calling parts one by one also leaves out what they
    win or lose by following one another in a network, so sums are near its time, not equal to it.

    Made by ``measure`` or ``load``; usable wherever ``BitOps`` is.

    Attributes:
        machine: on which it was measured.
        space: digest of what the space computes for the input, without its precisions.
        times: for each set of choices ``(label, value)`` the milliseconds that they take together; the empty set holds
            what is always there.
    """

    machine: Machine
    space: str
    times: tuple[tuple[frozenset[Context], float], ...]

    name = "latency_ms"

    @classmethod
    def configured(cls, input_shape: tuple[int, ...], arguments: Mapping[str, Any]) -> LatencyTable:
        """The table of a file: ``arguments`` are its ``table`` alone. The input is the one that was timed.

        Raises:
            InputError: as ``load``, or for other arguments.
        """
        if set(arguments) != {"table"}:
            raise InputError(f"cost 'latency_ms' takes one argument, 'table', a file; not {shown(dict(arguments))}")
        return cls.load(arguments["table"])

    def fingerprint(self) -> dict[str, Any]:
        """As for every cost, with a digest of the machine, the space and all times."""
        return {**super().fingerprint(), "table": _digest(_content(self))}

    def terms(self, model: nn.Module) -> dict[frozenset[Context], float]:
        """The table, as a polynomial like that of every cost.

        Raises:
            InputError: when ``model`` is not the space that was measured; it may offer other precisions.
        """
        parts = cut_space(model, self.input_shape, torch.device("cpu"))
        times = dict(self.times)
        if self.space != _space(parts):
            raise InputError(
                f"the latency table was measured for another space: {_difference(times, parts)}; take the table of "
                f"this one, or {REMEDY}"
            )
        if times.keys() != {part.context for part in parts.parts}:
            raise InputError(f"the latency table lacks times of this space, or has others as well; {REMEDY}")
        return times

    @classmethod
    def measure(
        cls,
        space: nn.Module,
        input_shape: tuple[int, ...] = (1, 3, 32, 32),
        *,
        device: torch.device | str = "cpu",
        rounds: int = 500,
        seconds: float = 30.0,
    ) -> LatencyTable:
        """Time all candidates of a space; medians of rounds in which every one has its turn, progress on stderr.

        Candidates that compute the same on inputs of the same shape are timed once and have equal times.

        Args:
            space: any model space; it is run as a copy.
            input_shape: shape of the input with its batch dimension.
            device: where the network runs, a CPU or a CUDA device.
            rounds: how often everything is timed, at most.
            seconds: after which no further round begins, once there have been a few.

        Raises:
            InputError: when the space cannot run such an input, or searches widths, kernel sizes or depths; for less
                than one round, or a time that is none.
        """
        rounds = whole_number("a number of rounds,", rounds, least=1)
        seconds = real_number("seconds", seconds, least=0)
        input_shape = shape("input_shape", input_shape)
        device = torch.device(device)
        parts = cut_space(space, input_shape, torch.device("cpu"))
        on_device = parts if device.type == "cpu" else cut_space(space, input_shape, device)
        milliseconds = dict(
            zip(on_device.runs, median_times(list(on_device.runs.values()), device, rounds, seconds), strict=True)
        )
        times: dict[frozenset[Context], float] = {}
        for part in on_device.parts:
            times[part.context] = times.get(part.context, 0.0) + milliseconds[part.operations]
        entries = tuple((context, round(time, 6)) for context, time in times.items())  # a nanosecond is no time
        return cls(input_shape=tuple(input_shape), machine=Machine.at_hand(device), space=_space(parts), times=entries)

    def save(self, path: str | Path) -> None:
        """Write the file (JSON); an earlier one of that name is replaced as a whole."""
        path = Path(path)
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(_content(self), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a table of this machine.

        Raises:
            InputError: when the file is missing, damaged or no latency table, or was measured on another machine, with
                other threads or another torch; what differs is named.
        """
        content = read_latency_file(Path(path))
        machine = Machine(**content["machine"])
        kind = machine.device.partition(":")[0]
        there_is = kind == "cpu" or (kind == "cuda" and torch.cuda.is_available())
        here = Machine.at_hand(torch.device(kind)) if there_is else None
        differences = [f"device {machine.device!r}, which is not here"] if here is None else machine.differences(here)
        if differences:
            raise InputError(
                f"latency table '{path}' was measured on another machine: {printable(', '.join(differences))}; on this "
                f"one, {REMEDY}"
            )
        return cls(
            input_shape=tuple(content["input_shape"]),
            machine=machine,
            space=content["space"],
            times=tuple((frozenset(entry["choices"].items()), entry["milliseconds"]) for entry in content["times"]),
        )


def _content(table: LatencyTable) -> dict[str, Any]:
    """What a file holds, as plain values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "machine": asdict(table.machine),
        "input_shape": list(table.input_shape),
        "space": table.space,
        "times": [{"choices": dict(sorted(choices, key=str)), "milliseconds": time} for choices, time in table.times],
    }


def _space(parts: Parts) -> str:
    """Digest of all candidates: where they stand and what they compute."""
    return _digest([[sorted(map(list, part.context), key=str), part.operations] for part in parts.parts])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _difference(times: Mapping[frozenset[Context], float], parts: Parts) -> str:
    """The first choice of the table or of this space that the other one does not have, in words."""
    there = {choice for context in times for choice in context}
    here = {choice for part in parts.parts for choice in part.context}
    for known, other, words in ((there, here, "has"), (here, there, "lacks")):
        for label, value in sorted(known - other, key=str):
            return f"it {words} {shown(value)} for choice {shown(label)}"
    return "its choices are the same, but widths, scale or the layers around them differ"
