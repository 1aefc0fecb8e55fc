"""Where the parts of one stage of an architecture drawing lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantnas_ext.reporting.geometry import (
    BOX_GAP,
    FORK_GAP,
    HEADING,
    LINE_GAP,
    PADDING,
    SKIP_RISE,
    SUM_RADIUS,
    TURN,
    Box,
    Layout,
    Panel,
    Point,
    Wire,
)

if TYPE_CHECKING:  # importing a space imports NNI, which drawings do not need
    from quantnas_ext.spaces.diagram import Stage


@dataclass(frozen=True)
class StageShape:
    """A stage before it has a place: its lines of blocks, and its extent around the main line.

    Attributes:
        stage: what is drawn.
        lines: ``[branch][line][block]``, the branches broken into lines.
        box: width and height of a block.
    """

    stage: Stage
    lines: list[list[list[str]]]
    box: tuple[float, float]

    @property
    def joined(self) -> bool:
        """Whether the stage begins with a fork and ends in a sum."""
        return len(self.lines) > 1 or self.stage.identity or bool(self.stage.taps)

    @property
    def enters_block(self) -> bool:
        """Whether the wire from before the stage ends at a block and not at a fork."""
        return not self.joined or (bool(self.stage.entrance) and not self.stage.identity)

    @property
    def broken(self) -> bool:
        """Whether a branch takes more than one line."""
        return any(len(lines) > 1 for lines in self.lines)

    @property
    def side(self) -> float:
        """Room between the frame's padding and the boxes, left and right."""
        return (FORK_GAP if self.joined else 0) + (TURN if self.broken else 0)

    @property
    def boxes_width(self) -> float:
        """Width of the longest line."""
        longest = max(len(line) for lines in self.lines for line in lines)
        return longest * self.box[0] + (longest - 1) * BOX_GAP

    @property
    def lead(self) -> float:
        """Room for the blocks in front of the fork."""
        count = len(self.stage.entrance)
        return count * (self.box[0] + BOX_GAP) + (FORK_GAP if count and self.stage.identity else 0)

    @property
    def width(self) -> float:
        """From edge to edge of its frame."""
        return 2 * (PADDING + self.side) + self.lead + self.boxes_width + (2 * SUM_RADIUS if self.joined else 0)

    @property
    def above(self) -> float:
        """From its upper edge to the main line."""
        return self.box[1] / 2 + (SKIP_RISE if self.stage.identity else 0) + HEADING

    @property
    def below(self) -> float:
        """From the main line to its lower edge."""
        count = sum(len(lines) for lines in self.lines) + bool(self.stage.taps)
        return (count - 0.5) * self.box[1] + (count - 1 + bool(self.stage.taps) / 2) * LINE_GAP + PADDING


def place_stage(layout: Layout, shape: StageShape, x: float, top: float, main: float) -> tuple[Point, list[Point]]:
    """Put a stage with its left edge at ``x``, its upper one at ``top``, and its main line at height ``main``.

    Returns:
        Where the wire from before the stage ends, and the beginning of the wire that leaves it.
    """
    layout.panels.append(Panel(shape.stage, x, top, shape.width, main + shape.below - top))
    fork = (x + PADDING + shape.lead, main)
    left = fork[0] + shape.side
    right = left + shape.boxes_width
    total = (right + shape.side + SUM_RADIUS, main)
    if shape.joined:
        layout.forks.append(fork)
        layout.sums.append(total)
    entry, skip_start = _place_entrance(layout, shape, x + PADDING, fork)
    first_box: Point = (left, main)
    leaving: list[Point] = []
    y = main
    for lines in shape.lines:
        start, way = _place_branch(layout, shape, lines, left, right, y)
        if shape.joined:
            layout.wires.append(Wire((fork, start) if start[1] == main else (fork, (fork[0], start[1]), start)))
            end_y = way[-1][1]
            if end_y == main:
                layout.wires.append(Wire((*way, (total[0] - SUM_RADIUS, main))))
            else:
                layout.wires.append(Wire((*way, (total[0], end_y), (total[0], main + SUM_RADIUS))))
        else:
            first_box, leaving = start, way
            if len(lines) > 1:  # back up to the main line, outside of where the lines turn
                rise = right + 2 * TURN / 3
                leaving += [(rise, way[-1][1]), (rise, main)]
        y += len(lines) * (shape.box[1] + LINE_GAP)
    if shape.stage.taps:
        _place_taps(layout, shape, left, fork, total)
    if shape.stage.identity:
        height = main - shape.box[1] / 2 - SKIP_RISE
        skip = (skip_start, (skip_start[0], height), (total[0], height), (total[0], main - SUM_RADIUS))
        layout.wires.append(Wire(skip, identity=True))
    if shape.joined:
        return entry, [(total[0] + SUM_RADIUS, main)]
    return first_box, leaving


def _place_entrance(layout: Layout, shape: StageShape, x: float, fork: Point) -> tuple[Point, Point]:
    """Put the blocks between the edge ``x`` and the fork of the branches.

    Returns where the wire from before the stage ends, and where an identity begins.
    """
    main = fork[1]
    if not shape.stage.entrance:
        return fork, fork
    begin = way = (x, main)
    x += FORK_GAP if shape.stage.identity else 0
    for index, block in enumerate(shape.stage.entrance):
        if index > 0 or shape.stage.identity:
            layout.wires.append(Wire((way, (x, main))))
        layout.boxes.append(Box(block, x, main - shape.box[1] / 2, *shape.box))
        way = (x + shape.box[0], main)
        x = way[0] + BOX_GAP
    layout.wires.append(Wire((way, fork), arrow=False))
    if shape.stage.identity:
        layout.forks.append(begin)
    return begin, begin


def _place_taps(layout: Layout, shape: StageShape, left: float, fork: Point, total: Point) -> None:
    """Put a stage's taps below the blocks of its branch, and lead them to the sum on a line below all."""
    width, height = shape.box
    main = fork[1]
    y = main + height + LINE_GAP
    gutter = y + (height + LINE_GAP) / 2
    for position, block in enumerate(shape.stage.taps):
        x = left + position * (width + BOX_GAP)
        start = fork if position == 0 else (x - BOX_GAP / 2, main)
        if position > 0:
            layout.forks.append(start)
        layout.wires.append(Wire((start, (start[0], y), (x, y))))
        layout.boxes.append(Box(block, x, y - height / 2, width, height))
        leave = x + width + BOX_GAP / 4
        end = (total[0], main + SUM_RADIUS)
        layout.wires.append(Wire(((x + width, y), (leave, y), (leave, gutter), (total[0], gutter), end)))


def _place_branch(
    layout: Layout, shape: StageShape, lines: Sequence[Sequence[str]], left: float, right: float, y: float
) -> tuple[Point, list[Point]]:
    """Put the blocks of one branch, its first line centred at height ``y``.

    Returns where the branch begins, and the beginning of the wire that leaves it.
    """
    width, height = shape.box
    # A short branch stands in the middle between fork and sum; the lines of a broken one all begin at the left.
    spare = right - left - len(lines[0]) * (width + BOX_GAP) + BOX_GAP if len(lines) == 1 else 0.0
    begin = (left + spare / 2, y)
    way: list[Point] = []
    for number, line in enumerate(lines):
        line_y = y + number * (height + LINE_GAP)
        if number > 0:
            turns, gutter = (right + TURN / 3, left - TURN / 2), line_y - (height + LINE_GAP) / 2
            way += [(turns[0], way[-1][1]), (turns[0], gutter), (turns[1], gutter), (turns[1], line_y)]
        for position, block in enumerate(line):
            x = begin[0] + position * (width + BOX_GAP)
            if way:
                layout.wires.append(Wire((*way, (x, line_y))))
            layout.boxes.append(Box(block, x, line_y - height / 2, width, height))
            way = [(x + width, line_y)]
    return begin, way
