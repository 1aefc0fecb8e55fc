"""How each block's joint (operation, precision) distribution moved over the epochs of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from quantnas_ext.quantization.precision import Precision
from quantnas_ext.reporting.candidates import Candidate
from quantnas_ext.reporting.figures import (
    FAINT_INK,
    INK,
    Colour,
    operation_colours,
    precision_name,
    precision_shade,
    precisions_name,
    shortened,
    style_axes,
)
from quantnas_ext.reporting.probabilities import BlockProbabilities, block_probabilities, epoch_numbers

_MOST_COLUMNS = 5
_PANEL = (1.75, 1.05)  # inches
_GAP = (0.22, 0.55)  # inches between panels; the vertical one holds a panel's two title lines
_LEFT, _RIGHT, _TOP = 0.6, 0.15, 0.5  # inches around the grid
_AXIS_LABEL = 0.45  # inches below the grid for tick labels and the name of the axis
_LEGEND_LINE = 0.19  # inches
_LEGEND_ENTRY = 1.35  # inches, and more for names of more than 16 characters
_LEGEND_CHARACTER = 0.06  # inches


def distributions_figure(history: Mapping[str, Any]) -> Figure:
    """One small panel a block: its candidates' joint probabilities, stacked to 1, over the epochs.

    The finally chosen candidate lies at the bottom under a dark line, so that its probability is read off the axis, and
    stands in the panel's title with its final probability. Colours are operations, shades are bits, and both mean the
    same in all panels; precisions without an operation are shades of grey.

    Args:
        history: the history of a search, see ``quantnas_ext.reporting.probabilities.block_probabilities``.

    Raises:
        InputError: when the history is incomplete.
    """
    blocks = block_probabilities(history)
    epochs = epoch_numbers(history)
    candidates = [candidate for block in blocks for candidate in block.candidates]
    colours = operation_colours(sorted({candidate.operation for candidate in candidates} - {""}))
    precisions = sorted({candidate.precision for candidate in candidates if candidate.precision is not None})

    columns = min(_MOST_COLUMNS, len(blocks), math.ceil(math.sqrt(1.6 * len(blocks))))
    rows = math.ceil(len(blocks) / columns)
    width = _LEFT + columns * _PANEL[0] + (columns - 1) * _GAP[0] + _RIGHT
    handles = _legend_handles(colours, precisions)
    longest = max(len(str(handle.get_label())) for handle in handles)
    legend_columns = max(1, int((width - _RIGHT) / (_LEGEND_ENTRY + _LEGEND_CHARACTER * max(0, longest - 16))))
    bottom = _AXIS_LABEL + _LEGEND_LINE * math.ceil(len(handles) / legend_columns) + 0.1
    height = _TOP + rows * _PANEL[1] + (rows - 1) * _GAP[1] + bottom

    figure = Figure(figsize=(width, height))
    for index, block in enumerate(blocks):
        row, column = divmod(index, columns)
        x = _LEFT + column * (_PANEL[0] + _GAP[0])
        y = bottom + (rows - 1 - row) * (_PANEL[1] + _GAP[1])
        axes = figure.add_axes((x / width, y / height, _PANEL[0] / width, _PANEL[1] / height))
        _draw_block(axes, block, epochs, colours, precisions)
        axes.tick_params(labelleft=column == 0, labelbottom=index + columns >= len(blocks))
    grid_middle = (bottom + (height - _TOP - bottom) / 2) / height
    figure.text(0.12 / width, grid_middle, "joint probability", rotation=90, va="center", fontsize=8, color=INK)
    columns_middle = (_LEFT + (width - _LEFT - _RIGHT) / 2) / width
    figure.text(columns_middle, (bottom - 0.33) / height, "epoch", ha="center", fontsize=8, color=INK)
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=legend_columns,
        fontsize=7.5,
        labelcolor=INK,
        frameon=False,
        handlelength=1.3,
        borderaxespad=0.2,
    )
    return figure


def stacking_order(block: BlockProbabilities) -> list[int]:
    """Indices of a block's candidates from the bottom of its panel up: the chosen one, then by operation and bits."""
    others = [index for index in range(len(block.candidates)) if index != block.chosen]
    others.sort(key=lambda index: (block.candidates[index].operation, block.candidates[index].precisions))
    return [block.chosen, *others]


def candidate_name(candidate: Candidate) -> str:
    """The candidate as written over a panel, such as ``conv_3x3, 8 bit``."""
    return shortened(", ".join(filter(None, [candidate.operation, precisions_name(candidate.precisions)])))


def _draw_block(
    axes: Axes,
    block: BlockProbabilities,
    epochs: np.ndarray,
    colours: Mapping[str, Colour],
    precisions: Sequence[Precision],
) -> None:
    """Fill one panel."""
    colours = {"": to_rgb(FAINT_INK), **colours}
    order = stacking_order(block)
    probabilities = block.probabilities[:, order]
    if len(epochs) == 1:  # a search of no epochs still has its start to show: draw it as a bar
        epochs, probabilities = np.array([epochs[0], epochs[0] + 1]), np.repeat(probabilities, 2, axis=0)
    stacked = [block.candidates[index] for index in order]
    shades = [precision_shade(colours[candidate.operation], candidate.precision, precisions) for candidate in stacked]
    separator = 0.4 if len(order) <= 20 else 0.15
    axes.stackplot(epochs, probabilities.T, colors=shades, edgecolor="white", linewidth=separator)
    axes.plot(epochs, probabilities[:, 0], color=INK, linewidth=1.3, solid_capstyle="butt")
    axes.axhline(0.5, color=INK, linewidth=0.5, linestyle=(0, (2, 3)))
    axes.set(xlim=(epochs[0], epochs[-1]), ylim=(0, 1), yticks=(0, 0.5, 1), yticklabels=("0", "0.5", "1"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=2))
    style_axes(axes, size=7)

    chosen = f"{candidate_name(block.candidates[block.chosen])}  {block.probabilities[-1, block.chosen]:.2f}"
    darkened = tuple(0.75 * channel for channel in colours[block.candidates[block.chosen].operation])
    # Two lines, offset in points from the panel's upper left corner.
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(shortened(block.block), (0, 1), (0, 13), fontsize=7.5, color=INK, fontweight="bold", **style)
    axes.annotate(chosen, (0, 1), (0, 3), fontsize=7.5, color=darkened, **style)


def _legend_handles(colours: Mapping[str, Colour], precisions: Sequence[Precision]) -> list[Artist]:
    """One legend for all panels: operations by colour, bits by shade of grey, the line of the chosen candidate."""
    grey = to_rgb(FAINT_INK)
    handles: list[Artist] = [Patch(color=colour, label=shortened(name)) for name, colour in colours.items()]
    if len(precisions) > 1:
        handles += [
            Patch(color=precision_shade(grey, precision, precisions), label=precision_name(precision))
            for precision in precisions
        ]
    handles.append(Line2D([], [], color=INK, linewidth=1.3, label="chosen"))
    return handles
