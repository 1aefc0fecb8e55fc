"""Checks of what all SR spaces are built with."""

from __future__ import annotations

from collections.abc import Mapping

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


def check_common(
    scale: object,
    width: object,
    cells: object,
    share_cells: object,
    adq: object,
    bits: object,
    candidates: Mapping[str, object],
) -> tuple[int, int, int, bool, bool | str]:
    """What all SR spaces take: the first five as plain values, and the last two only looked at.

    Args:
        scale: as ``check_scale``.
        width, cells: whole numbers above 0.
        share_cells: True or False.
        adq: True, False or ``"adadm"``.
        bits: a list; the precisions in it are checked where they are read.
        candidates: by argument a list of names of operations; a bare text would be read letter by letter.

    Raises:
        InputError: naming the argument.
    """
    if not (isinstance(adq, str) and adq in RESIDUALS):
        try:
            adq = flag("adq", adq)
        except InputError:
            raise InputError(
                f"adq {shown(adq)} of the space is not possible; use true or false, or adadm for AdaDM"
            ) from None
    if not isinstance(bits, (list, tuple)) or not bits:
        raise InputError(f"bits {shown(bits)} of the space should be a list of precisions, such as [4, 8]")
    for name, value in candidates.items():
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            right = f"write [{value[:40]}]" if isinstance(value, str) else "such as [conv_3x3]"
            raise InputError(f"{name} {shown(value)} of the space should be a list of operations; {right}")
    return (
        check_scale(scale),
        whole_number("width", width, least=1, most=MOST_CHANNELS),
        whole_number("cells", cells, least=1, most=MOST_BLOCKS),
        flag("share_cells", share_cells),
        adq,
    )


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
