"""Checks of what all SR spaces are built with."""

from __future__ import annotations

from quantnas_ext.errors import InputError, shown
from quantnas_ext.nn.residual import RESIDUALS

SCALES = (2, 3, 4)
MOST_CHANNELS = 4096
MOST_BLOCKS = 256
"""Bounds far above every real network, so that a slip of the pen does not fill the memory."""


def check_scale(scale: object) -> None:
    """Refuse a magnification that the SR spaces do not have.

    Raises:
        InputError: when ``scale`` is not one of ``SCALES``.
    """
    if type(scale) is not int or scale not in SCALES:  # neither true nor 2.0
        raise InputError(f"scale {shown(scale)} is not possible; use one of {', '.join(map(str, SCALES))}")


def check_count(name: str, value: object, *, least: int = 1, most: int) -> None:
    """Refuse what is not a whole number of at least ``least`` and at most ``most``.

    Raises:
        InputError: naming the argument ``name``.
    """
    if type(value) is not int or not least <= value <= most:
        raise InputError(
            f"{name} {shown(value)} of the space is not possible; "
            f"use a whole number of at least {least} and at most {most}"
        )


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False, such as the text "false", which Python takes for true.

    Raises:
        InputError: naming the argument ``name``.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} {shown(value)} of the space is not possible; use true or false")


def check_adq(value: object) -> None:
    """Refuse what does not say how residual branches are normalised.

    Raises:
        InputError: when it is neither True nor False nor ``"adadm"``.
    """
    if not isinstance(value, (bool, str)) or value not in RESIDUALS:
        raise InputError(f"adq {shown(value)} of the space is not possible; use true or false, or adadm for AdaDM")


def check_names(name: str, value: object) -> None:
    """Refuse what is not a list of names; a bare text would be read letter by letter.

    Raises:
        InputError: naming the argument ``name``.
    """
    if isinstance(value, str):
        raise InputError(f"{name} {shown(value)} of the space should be a list of operations; write [{value[:40]}]")
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{name} {shown(value)} of the space should be a list of operations, such as [conv_3x3]")


def check_precisions(name: str, value: object) -> None:
    """Refuse what is not a list or empty; what it holds is checked where the precisions are read.

    Raises:
        InputError: naming the argument ``name``.
    """
    if not isinstance(value, (list, tuple)) or not value:
        raise InputError(f"{name} {shown(value)} of the space should be a list of precisions, such as [4, 8]")


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
