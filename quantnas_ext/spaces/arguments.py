"""Checks of what all SR spaces are built with."""

from __future__ import annotations

from quantnas_ext.arguments import flag, whole_number
from quantnas_ext.errors import InputError, shown
from quantnas_ext.nn.residual import RESIDUALS

SCALES = (2, 3, 4)
SR_COST_INPUTS = ((1, 3, 32, 32), (1, 3, 256, 256))
"""Inputs for which BitOps of super-resolution are filed: those of Shvetsov et al. (2024), and a larger one."""

MOST_CHANNELS = 4096
MOST_BLOCKS = 256
"""Bounds far above every real network, so that a slip of the pen does not fill the memory."""


def check_scale(scale: object) -> int:
    """A magnification that the SR spaces have, as a plain number.

    Raises:
        InputError: when ``scale`` is not one of ``SCALES``.
    """
    try:
        return whole_number("scale", scale, least=min(SCALES), most=max(SCALES))
    except InputError:
        raise InputError(f"scale {shown(scale)} is not possible; use one of {', '.join(map(str, SCALES))}") from None


def check_adq(value: object) -> bool | str:
    """How residual branches are normalised, as a plain value.

    Raises:
        InputError: when it is neither True nor False nor ``"adadm"``.
    """
    if isinstance(value, str) and value in RESIDUALS:
        return value
    try:
        return flag("adq", value)
    except InputError:
        raise InputError(
            f"adq {shown(value)} of the space is not possible; use true or false, or adadm for AdaDM"
        ) from None


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
