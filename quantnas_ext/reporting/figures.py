"""The house style of all figures, and how they reach the disk.

Figures are made through matplotlib's object API alone: pyplot's global state would leak between a user's own figures
and ours, and would open windows on machines that have a display.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.quantization.precision import FULL_PRECISION_BITS, Precision

Colour = tuple[float, float, float]

INK = "#1f2933"
FAINT_INK = "#6b7785"
HAIRLINE = "#c9d0d8"

FORMATS = (".png", ".pdf", ".svg")

_OPERATION_COLOURS = (
    *("#3b6fb6", "#d1605e", "#4f9d69", "#8b62a8", "#d99a2b"),
    *("#3aa6a6", "#a3743c", "#d57aa9", "#7f8c3a", "#5b6770"),
)
_PRECISION_COLOURS = LinearSegmentedColormap.from_list(
    "precision", ["#fbe9a6", "#bfe3b4", "#8fc7dc", "#9fb0e3", "#c3b5dd"]
)


def operation_colours(operations: Sequence[str]) -> dict[str, Colour]:
    """A colour for each operation: a fixed list of ten, and beyond it evenly spread hues."""
    count = len(operations)
    if count <= len(_OPERATION_COLOURS):
        return {name: to_rgb(colour) for name, colour in zip(operations, _OPERATION_COLOURS, strict=False)}
    # Neighbours in hue also differ in brightness, which doubles the number of colours that can be told apart.
    hsv = [(index / count, 0.55, 0.82 if index % 2 else 0.58) for index in range(count)]
    return {name: colorsys.hsv_to_rgb(*triple) for name, triple in zip(operations, hsv, strict=True)}


def precision_shade(colour: Colour, precision: Precision | None, precisions: Sequence[Precision]) -> Colour:
    """The shade of an operation's colour for one of the precisions that occur: the more bits, the fuller the colour.

    A candidate without a precision (``None``, for instance an identity) gets the full colour.
    """
    if precision is None or len(precisions) < 2:
        return colour
    rank = sorted(precisions).index(precision) / (len(precisions) - 1)
    white = 0.6 * (1 - rank)
    red, green, blue = (channel + (1 - channel) * white for channel in colour)
    return red, green, blue


def precision_fill(precision: Precision | None) -> Colour:
    """The colour of a precision in drawings, the same in every drawing: yellow at 2 bits to lilac at 32, else white."""
    if precision is None:
        return to_rgb("white")
    mean_log_bits = (math.log2(precision.weight_bits) + math.log2(precision.activation_bits)) / 2
    return to_rgb(_PRECISION_COLOURS((mean_log_bits - 1) / (math.log2(FULL_PRECISION_BITS) - 1))[:3])


def precision_name(precision: Precision | None) -> str:
    """What is written on a block: ``8 bit``, ``W4 A8`` (weights, activations), ``32 bit``, or nothing."""
    if precision is None:
        return ""
    if precision.weight_bits == precision.activation_bits:
        return f"{precision.weight_bits} bit"
    return f"W{precision.weight_bits} A{precision.activation_bits}"


def precisions_name(precisions: Sequence[Precision]) -> str:
    """What is written for layers that choose separately: ``4 bit, 8 bit``, and of more than two the least and most."""
    names = [precision_name(precision) for precision in sorted(set(precisions))]
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} to {names[-1]}"


def shortened(text: str, most: int = 30) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def style_axes(axes: Axes, *, size: float) -> None:
    """Thin frame on the left and below only, small ticks, text of ``size`` points."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(HAIRLINE)
    axes.tick_params(labelsize=size, color=HAIRLINE, labelcolor=FAINT_INK, length=2.5, width=0.7, pad=2)


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 200) -> Path:
    """Write a figure under a temporary name and rename it, so that a broken run leaves no half picture.

    Args:
        path: a file ending in .png (with ``dpi`` dots an inch), .pdf or .svg; its folder is created when missing.

    Raises:
        InputError: for another ending, or when the path cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"the picture {path} ends in {path.suffix!r}; give a name ending in {', '.join(FORMATS)}")
    with atomic_file(path, parents=True) as temporary:
        figure.savefig(temporary, dpi=dpi, facecolor="white", format=path.suffix.lower().removeprefix("."))
    return path
