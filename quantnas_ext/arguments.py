"""Checks of what a Python caller gives: numbers, flags and names of the right kind, as plain Python values.

Every check takes what the value is, as it reads at the start of a sentence (``"warmup_epochs"``), and the value, and
raises an ``InputError`` for what is not possible. Numbers of NumPy count as the plain numbers that they hold. True is
no number, 2.0 no whole number and 1 no flag: where Python would take one for the other, a slip of the pen would pass
for something meant.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from quantnas_ext.errors import InputError, shown, unknown_name

Entry = TypeVar("Entry")


class Registry(dict[str, Entry], Generic[Entry]):
    """Things of one kind by the names that arguments and files give them.

    Args:
        kind: what is named, as it reads after "unknown".
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that adds something under ``name``.

        Raises:
            InputError: when the name is taken, or is more than letters, digits and single underscores (it becomes part
                of NNI's labels and of module names).
        """
        if name in self:
            raise InputError(f"{self.kind} {name!r} exists already; choose another name")
        if not isinstance(name, str) or not name.replace("_", "a").isalnum() or "__" in name:
            raise InputError(f"{shown(name)} cannot name a {self.kind}; use letters, digits and single underscores")

        def register(entry: Entry) -> Entry:
            self[name] = entry
            return entry

        return register

    def find(self, name: object) -> Entry:
        """What is known under a name.

        Raises:
            InputError: for an unknown name, with the nearest one.
        """
        return self[name_among(self.kind, name, self)]


def whole_number(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """A whole number of at least ``least`` and at most ``most`` (None for no such limit), else an ``InputError``."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
        if least <= number and (most is None or number <= most):
            return number
    limits = f"at least {least}" + ("" if most is None else f" and at most {most}")
    raise InputError(f"{name} {shown(value)} is not possible; use a whole number of {limits}")


def real_number(name: str, value: object, *, above: float | None = None, least: float | None = None) -> float:
    """A finite number ``above`` a limit, or of at least ``least``, where they are given, else an ``InputError``."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number) and (above is None or number > above) and (least is None or number >= least):
            return number
    limits = "" if above is None else f" above {above:g}"
    limits += "" if least is None else f" of at least {least:g}"
    raise InputError(f"{name} {shown(value)} is not possible; use a finite number{limits}")


def flag(name: str, value: object) -> bool:
    """True or False, else an ``InputError``; a text such as ``"false"`` would count as true."""
    # NumPy's truth value is told by its name: this module is loaded where NumPy need not be.
    if isinstance(value, bool) or (type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")):
        return bool(value)
    raise InputError(f"{name} {shown(value)} is not possible; use True or False")


def name_among(kind: str, value: Any, known: Iterable[str]) -> Any:
    """One of the known names of a kind (as it reads after "unknown"), else an ``InputError`` with the nearest one."""
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise unknown_name(kind, value, names)
    return str(value)


def shape(name: str, value: object) -> tuple[int, ...]:
    """The shape of an input with its batch dimension: two or more whole numbers above 0, else an ``InputError``."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) >= 2:
        try:
            return tuple(whole_number(name, size, least=1) for size in value)
        except InputError:
            pass
    raise InputError(
        f"{name} {shown(value)} is not the shape of an input; give the batch and at least one more dimension, all "
        "above 0, for example (1, 3, 32, 32)"
    )
