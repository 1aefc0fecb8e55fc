"""Where the parts of an architecture drawing lie: geometry in inches, y downwards, nothing drawn yet.

Stages follow one another from left to right in rows that break like lines of text. Within a stage, branches lie below
each other between a fork and a sum; a branch too long for a row breaks as well. The main line of a row runs through its
input, the first line of each stage's first branch, and the stages' sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantnas_ext.reporting.geometry import (
    BOX_GAP,
    FORK_GAP,
    PADDING,
    ROW_GAP,
    ROW_LIMIT,
    STAGE_GAP,
    SUM_RADIUS,
    TURN,
    Layout,
    Point,
    Wire,
)
from quantnas_ext.reporting.stage_layout import StageShape, place_stage

if TYPE_CHECKING:  # importing a space imports NNI, which drawings do not need
    from quantnas_ext.spaces.diagram import Stage


def lay_out(stages: Sequence[Stage], box: tuple[float, float], ends: tuple[float, float]) -> Layout:
    """Find a place for every part of a drawing.

    Args:
        stages: the macro-structure; every branch has at least one block.
        box: width and height of a block.
        ends: widths of the names of input (at the start of the first row) and output (behind the last stage).
    """
    most = max(1, int((ROW_LIMIT - 2 * (PADDING + FORK_GAP + TURN + SUM_RADIUS) + BOX_GAP) / (box[0] + BOX_GAP)))
    rows = _balanced([StageShape(stage, _broken(stage, most), box) for stage in stages], ends)
    layout = Layout()
    x, main, bottom = ends[0], 0.0, -ROW_GAP
    way: list[Point] = []  # from the last thing placed towards the next one
    for index, row in enumerate(rows):
        top = bottom + ROW_GAP
        if index == 0:
            main = top + max(shape.above for shape in row)
            layout.input = (0.0, main)
            way = [(x, main)]
        else:
            turn, gutter = x + STAGE_GAP / 2, top - ROW_GAP / 2
            way += [(turn, main), (turn, gutter), (0.0, gutter)]
            x, main = 0.0, top + max(shape.above for shape in row)
            way.append((x, main))
        bottom = main + max(shape.below for shape in row)
        for shape in row:
            entry, leaving = place_stage(layout, shape, x + STAGE_GAP, top, main)
            layout.wires.append(Wire((*way, entry), arrow=shape.enters_block))
            way = leaving
            x += STAGE_GAP + shape.width
            layout.width = max(layout.width, x + STAGE_GAP / 2)
    layout.output = (x + STAGE_GAP, main)
    layout.wires.append(Wire((*way, layout.output)))
    layout.width = max(layout.width, x + STAGE_GAP + ends[1])
    layout.height = bottom
    return layout


def _broken(stage: Stage, most: int) -> list[list[list[str]]]:
    """The branches of a stage in lines of at most ``most`` blocks; one with taps stays whole, as they lie below it."""
    length = max(map(len, stage.branches)) if stage.taps else most
    return [[branch[start : start + length] for start in range(0, len(branch), length)] for branch in stage.branches]


def _balanced(shapes: Sequence[StageShape], ends: tuple[float, float]) -> list[list[StageShape]]:
    """Break the stages into as few rows as ``ROW_LIMIT`` allows, and those as equally long as possible."""
    rows = _rows(shapes, ends, ROW_LIMIT)
    limit = ROW_LIMIT
    while limit > 0 and len(narrower := _rows(shapes, ends, limit)) == len(rows):
        rows = narrower
        limit -= 0.1
    return rows


def _rows(shapes: Sequence[StageShape], ends: tuple[float, float], limit: float) -> list[list[StageShape]]:
    """Break the stages into rows, as words are broken into lines of text."""
    rows: list[list[StageShape]] = [[]]
    x = ends[0]
    for index, shape in enumerate(shapes):
        advance = STAGE_GAP + shape.width
        behind = STAGE_GAP + ends[1] if index == len(shapes) - 1 else 0.0
        if rows[-1] and x + advance + behind > limit:
            rows.append([])
            x = 0.0
        rows[-1].append(shape)
        x += advance
    return rows
