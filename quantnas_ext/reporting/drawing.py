"""A drawing of a found architecture: operation and bits on every block, arrows for what flows where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath

from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.quantization.precision import Precision
from quantnas_ext.reporting.candidates import Candidate
from quantnas_ext.reporting.figures import (
    FAINT_INK,
    HAIRLINE,
    INK,
    precision_fill,
    precision_name,
    precisions_name,
    shortened,
)
from quantnas_ext.reporting.geometry import SUM_RADIUS, Box, Layout, Panel, Point, Wire
from quantnas_ext.reporting.layout import lay_out
from quantnas_ext.reporting.table import costs_text

if TYPE_CHECKING:  # importing these imports NNI, which drawings do not need
    from quantnas_ext.costs.counted import CountedCost
    from quantnas_ext.spaces.diagram import Stage

_BOX_HEIGHT = 0.62
_BOX_MARGIN = 0.09  # between a box and its text
_LABEL_SIZE, _OPERATION_SIZE, _PRECISION_SIZE = 6.5, 8.0, 7.5  # points
_MARGIN = 0.15
_END_GAP = 0.06  # between the names of input and output and their wires
_LEGEND_HEIGHT = 0.3
_CORNER = 0.07  # radius of the corners of wires
_SKIP_CORNER = 0.2
_SKIP_COLOUR = "#c2571a"
_SHADOW = 0.05  # by how much the copies of a repeated stage peep out behind it


def architecture_figure(
    stages: Sequence[Stage],
    chosen: Mapping[str, Candidate],
    *,
    title: str = "",
    costs: Sequence[CountedCost] = (),
    ends: tuple[str, str] = ("LR image", "SR image"),
) -> Figure:
    """The stages from left to right, in as many rows as needed.

    Every block is a box with its label, operation and bits, coloured by bits. Parallel branches meet in a plus sign; an
    identity is a curved arrow above its stage; a repeated stage carries how often it stands in a row.

    Args:
        stages: the macro-structure, from a space's ``diagram()``.
        chosen: what stands in every block, by label, see ``quantnas_ext.reporting.candidates.chosen_candidates``.
        title: written above the drawing.
        costs: what to write under the title.
        ends: names of what goes in and what comes out.

    Raises:
        InputError: when a block of the stages is not among those chosen, or a stage cannot be drawn.
    """
    labels = [block for stage in stages for block in stage.blocks]
    if not labels or any(not branch for stage in stages for branch in stage.branches):
        raise InputError("the diagram has a branch without blocks; every branch of every stage needs at least one")
    for stage in stages:
        if stage.taps and (len(stage.branches) != 1 or len(stage.taps) > len(stage.branches[0])):
            raise InputError(f"stage {stage.title!r} has {len(stage.taps)} taps; use one branch with as many blocks")
        if stage.entrance and len(stage.branches) == 1:
            raise InputError(f"stage {stage.title!r} has an entrance to a single branch; put its blocks in the branch")
    for label in labels:
        if label not in chosen:
            raise unknown_name("block in the diagram", label, chosen)
    found = {label: chosen[label] for label in labels}
    end_widths = (_text_width(ends[0], 8, bold=True) + _END_GAP, _text_width(ends[1], 8, bold=True) + _END_GAP)
    layout = lay_out(stages, (_box_width(found), _BOX_HEIGHT), end_widths)

    subtitle = costs_text(costs, separator="   ·   ")
    header = (0.3 if title else 0) + (0.24 if subtitle else 0)
    header_width = max(_text_width(title, 11, bold=True), _text_width(subtitle, 8))
    width = max(layout.width, header_width) + 2 * _MARGIN
    height = layout.height + header + _LEGEND_HEIGHT + 2 * _MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    # One unit of the axes is one inch and the drawing's upper left corner lies at (0, 0).
    axes.set(xlim=(-_MARGIN, width - _MARGIN), ylim=(height - _MARGIN - header, -_MARGIN - header))
    axes.set_axis_off()

    if title:
        axes.text(0, -header + 0.02, title, fontsize=11, fontweight="bold", color=INK, va="top")
    if subtitle:
        axes.text(0, -0.12, subtitle, fontsize=8, color=FAINT_INK, va="bottom")
    for panel in layout.panels:
        _draw_panel(axes, panel)
    for wire in layout.wires:
        _draw_wire(axes, wire)
    _draw_joints(axes, layout)
    for box in layout.boxes:
        _draw_box(axes, box, found[box.block])
    output_x, output_y = layout.output
    for name, (x, y) in zip(ends, (layout.input, (output_x + _END_GAP, output_y)), strict=True):
        axes.text(x, y, name, fontsize=8, fontweight="bold", color=INK, va="center_baseline", gid=f"end:{name}")
    _draw_legend(axes, {candidate.precision for candidate in found.values()}, layout)
    return figure


def _text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width of a text in inches."""
    if not text:
        return 0.0
    font = FontProperties(weight="bold" if bold else "normal")
    return float(TextPath((0, 0), text, size=size, prop=font).get_extents().width) / 72


def _box_width(found: Mapping[str, Candidate]) -> float:
    """The width at which every block's texts fit; one for all boxes, so that they stand in columns."""
    widths = [_text_width(label, _LABEL_SIZE) for label in found]
    for candidate in found.values():
        widths.append(_text_width(shortened(candidate.operation), _OPERATION_SIZE, bold=True))
        widths.append(_text_width(precisions_name(candidate.precisions), _PRECISION_SIZE))
    return max(0.7, *widths) + 2 * _BOX_MARGIN


def _draw_panel(axes: Axes, panel: Panel) -> None:
    """The frame of a stage with its title; a repeated stage looks like a stack of sheets."""
    style = "round,pad=0,rounding_size=0.08"
    for depth in range(min(panel.stage.repeat - 1, 2), -1, -1):
        corner = (panel.x + depth * _SHADOW, panel.y + depth * _SHADOW)
        frame = FancyBboxPatch(
            corner, panel.width, panel.height, boxstyle=style, facecolor="#f6f8fa", edgecolor=HAIRLINE, linewidth=0.8
        )
        axes.add_patch(frame)
    frame.set_gid(f"stage:{panel.stage.title}")
    heading: dict[str, Any] = {"fontsize": 8, "fontweight": "bold", "va": "center"}
    axes.text(panel.x + 0.1, panel.y + 0.14, panel.stage.title, color=FAINT_INK, **heading)
    if panel.stage.repeat > 1:
        x = panel.x + panel.width - 0.1
        axes.text(x, panel.y + 0.14, f"× {panel.stage.repeat}", color=INK, ha="right", **heading)


def _draw_box(axes: Axes, box: Box, candidate: Candidate) -> None:
    """A choice block: its label, the operation and the bits, where there are such."""
    fill = precision_fill(candidate.precision)
    edge = tuple(0.6 * channel for channel in fill)
    patch = FancyBboxPatch(
        (box.x, box.y),
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=fill,
        edgecolor=edge,
        linewidth=0.9,
        gid=f"block:{box.block}",
    )
    axes.add_patch(patch)
    middle = box.x + box.width / 2
    written = [
        (box.block, _LABEL_SIZE, "normal", "#45525f"),
        (shortened(candidate.operation), _OPERATION_SIZE, "bold", INK),
        (precisions_name(candidate.precisions), _PRECISION_SIZE, "normal", INK),
    ]
    lines = [line for line in written if line[0]]
    heights = (0.14, 0.32, 0.49) if len(lines) == 3 else (0.21, 0.40)
    for y, (text, size, weight, colour) in zip(heights, lines, strict=True):
        style: dict[str, Any] = {"fontsize": size, "fontweight": weight, "color": colour}
        axes.text(middle, box.y + y, text, ha="center", va="center_baseline", **style)


def _draw_wire(axes: Axes, wire: Wire) -> None:
    """An arrow with rounded corners."""
    colour = _SKIP_COLOUR if wire.identity else FAINT_INK
    arrow = FancyArrowPatch(
        path=rounded(wire.points, _SKIP_CORNER if wire.identity else _CORNER),
        arrowstyle="-|>,head_length=3,head_width=1.6" if wire.arrow else "-",
        linewidth=1.1,
        edgecolor=colour,
        facecolor=colour if wire.arrow else "none",
        shrinkA=0,
        shrinkB=0,
        capstyle="butt",
        joinstyle="round",
        gid="identity" if wire.identity else "wire",
    )
    axes.add_patch(arrow)


def rounded(points: Sequence[Point], radius: float) -> Outline:
    """A polyline whose corners are cut by quadratic curves of a radius, less where a leg is short."""
    corners = [np.array(point) for point in points]
    vertices, codes = [corners[0]], [Outline.MOVETO]
    for before, corner, behind in zip(corners, corners[1:], corners[2:], strict=False):
        to, away = before - corner, behind - corner
        reach = min(radius, float(np.linalg.norm(to)) / 2, float(np.linalg.norm(away)) / 2)
        if reach == 0:
            continue
        vertices += [corner + to / np.linalg.norm(to) * reach, corner, corner + away / np.linalg.norm(away) * reach]
        codes += [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    return Outline([*vertices, corners[-1]], [*codes, Outline.LINETO])


def _draw_joints(axes: Axes, layout: Layout) -> None:
    """Forks as dots, sums as circled plus signs."""
    for fork in layout.forks:
        axes.add_patch(Circle(fork, 0.035, facecolor=FAINT_INK, edgecolor="none", zorder=3))
    for x, y in layout.sums:
        axes.add_patch(Circle((x, y), SUM_RADIUS, facecolor="white", edgecolor=INK, linewidth=1, zorder=3, gid="sum"))
        arm = 0.55 * SUM_RADIUS
        axes.plot([x - arm, x + arm], [y, y], color=INK, linewidth=1, zorder=4)
        axes.plot([x, x], [y - arm, y + arm], color=INK, linewidth=1, zorder=4)


def _draw_legend(axes: Axes, precisions: set[Precision | None], layout: Layout) -> None:
    """Below the drawing: what the colours mean, and the identity where there is one."""
    x, y = 0.0, layout.height + 0.28
    for precision in sorted(precision for precision in precisions if precision is not None):
        patch = FancyBboxPatch((x, y - 0.06), 0.2, 0.12, boxstyle="round,pad=0,rounding_size=0.03", linewidth=0.7)
        fill = precision_fill(precision)
        patch.set(facecolor=fill, edgecolor=tuple(0.6 * channel for channel in fill))
        axes.add_patch(patch)
        name = precision_name(precision)
        axes.text(x + 0.27, y, name, fontsize=7.5, color=INK, va="center_baseline")
        x += 0.27 + _text_width(name, 7.5) + 0.25
    if any(wire.identity for wire in layout.wires):
        _draw_wire(axes, Wire(((x, y), (x + 0.28, y)), identity=True))
        axes.text(x + 0.35, y, "identity", fontsize=7.5, color=INK, va="center_baseline")
