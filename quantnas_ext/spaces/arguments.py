"""Checks of what all SR spaces are built with."""

from __future__ import annotations

from quantnas_ext.errors import InputError

SCALES = (2, 3, 4)


def check_scale(scale: object) -> None:
    """Refuse a magnification that the SR spaces do not have.

    Raises:
        InputError: when ``scale`` is not one of ``SCALES``.
    """
    if isinstance(scale, bool) or scale not in SCALES:
        raise InputError(f"scale {scale!r} is not possible; use one of {', '.join(map(str, SCALES))}")


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Refuse what is not a whole number of at least ``least``.

    Raises:
        InputError: naming the argument ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} {value!r} of the space is not possible; use a whole number of at least {least}")


def check_multiple(width: int, divisor: int, reason: str) -> None:
    """Refuse a width that ``divisor`` does not divide, where ``reason`` says why it has to.

    Raises:
        InputError: naming the nearest widths that would be right.
    """
    if width % divisor:
        below = width // divisor * divisor
        nearest = f"{below} or {below + divisor}" if below else str(divisor)
        raise InputError(
            f"width {width} is not possible: {reason}, so it has to be a multiple of {divisor}, for example {nearest}"
        )
