"""Where the parts of an architecture drawing lie: geometry in inches, y downwards, nothing drawn yet.

Stages follow one another from left to right in rows that break like lines of text. Within a stage, branches lie below
each other between a fork and a sum; a branch too long for a row breaks as well. The main line of a row runs through its
input, the first line of each stage's first branch, and the stages' sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing a space imports NNI, which drawings do not need
    from quantnas_ext.spaces.diagram import Stage

Point = tuple[float, float]

ROW_LIMIT = 10.6  # width of a row
BOX_GAP = 0.26  # between boxes of a branch; holds an arrow
LINE_GAP = 0.26  # between lines of boxes; holds the way back of a broken branch
STAGE_GAP = 0.36
ROW_GAP = 0.4  # between rows; holds the way back
PADDING = 0.17  # inside a stage
FORK_GAP = 0.24  # from a fork to its branches, and from branches to their sum
TURN = 0.3  # room beside the boxes in which a broken branch turns
HEADING = 0.3  # the stage's title
SKIP_RISE = 0.2  # how far an identity runs above the boxes
SUM_RADIUS = 0.095


@dataclass(frozen=True)
class Box:
    """A choice block; (x, y) is its upper left corner."""

    block: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Panel:
    """The frame of a stage; (x, y) is its upper left corner."""

    stage: Stage
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Wire:
    """A line through right-angled corners.

    Attributes:
        points: its corners.
        arrow: whether it ends in an arrow head; it does except at a fork.
        identity: whether it is a skip that carries its stage's input unchanged.
    """

    points: tuple[Point, ...]
    arrow: bool = True
    identity: bool = False


@dataclass
class Layout:
    """Everything that is drawn, within (0, 0) and (`width`, `height`).

    Attributes:
        input, output: middle of the left edge of the names of what goes in and comes out.
        forks: where the input of a stage parts.
        sums: centres of additions.
    """

    input: Point = (0.0, 0.0)
    output: Point = (0.0, 0.0)
    width: float = 0.0
    height: float = 0.0
    boxes: list[Box] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    forks: list[Point] = field(default_factory=list)
    sums: list[Point] = field(default_factory=list)


@dataclass(frozen=True)
class _Plan:
    """A stage before it has a place: its lines of blocks, and its extent around the main line."""

    stage: Stage
    lines: list[list[list[str]]]  # [branch][line][block]
    box: tuple[float, float]

    @property
    def joined(self) -> bool:
        """Whether the stage begins with a fork and ends in a sum."""
        return len(self.lines) > 1 or self.stage.identity

    @property
    def broken(self) -> bool:
        """Whether a branch takes more than one line."""
        return any(len(lines) > 1 for lines in self.lines)

    @property
    def columns(self) -> int:
        return max(len(line) for lines in self.lines for line in lines)

    @property
    def side(self) -> float:
        """Room between the frame's padding and the boxes, left and right."""
        return (FORK_GAP if self.joined else 0) + (TURN if self.broken else 0)

    @property
    def boxes_width(self) -> float:
        return self.columns * self.box[0] + (self.columns - 1) * BOX_GAP

    @property
    def width(self) -> float:
        return 2 * (PADDING + self.side) + self.boxes_width + (2 * SUM_RADIUS if self.joined else 0)

    @property
    def above(self) -> float:
        return self.box[1] / 2 + (SKIP_RISE if self.stage.identity else 0) + HEADING

    @property
    def below(self) -> float:
        count = sum(len(lines) for lines in self.lines)
        return (count - 0.5) * self.box[1] + (count - 1) * LINE_GAP + PADDING


def lay_out(stages: Sequence[Stage], box: tuple[float, float], ends: tuple[float, float]) -> Layout:
    """Find a place for every part of a drawing.

    Args:
        stages: the macro-structure; every branch has at least one block.
        box: width and height of a block.
        ends: widths of the names of input (at the start of the first row) and output (behind the last stage).
    """
    most = max(1, int((ROW_LIMIT - 2 * (PADDING + FORK_GAP + TURN + SUM_RADIUS) + BOX_GAP) / (box[0] + BOX_GAP)))
    rows = _balanced([_Plan(stage, [_lines(branch, most) for branch in stage.branches], box) for stage in stages], ends)
    layout = Layout()
    x, main, bottom = ends[0], 0.0, -ROW_GAP
    way: list[Point] = []  # from the last thing placed towards the next one
    for index, row in enumerate(rows):
        top = bottom + ROW_GAP
        if index == 0:
            main = top + max(plan.above for plan in row)
            layout.input = (0.0, main)
            way = [(x, main)]
        else:
            turn, gutter = x + STAGE_GAP / 2, top - ROW_GAP / 2
            way += [(turn, main), (turn, gutter), (0.0, gutter)]
            x, main = 0.0, top + max(plan.above for plan in row)
            way.append((x, main))
        bottom = main + max(plan.below for plan in row)
        for plan in row:
            entry, leaving = _place(layout, plan, x + STAGE_GAP, top, main)
            layout.wires.append(Wire((*way, entry), arrow=not plan.joined))
            way = leaving
            x += STAGE_GAP + plan.width
            layout.width = max(layout.width, x + STAGE_GAP / 2)
    layout.output = (x + STAGE_GAP, main)
    layout.wires.append(Wire((*way, layout.output)))
    layout.width = max(layout.width, x + STAGE_GAP + ends[1])
    layout.height = bottom
    return layout


def _lines(branch: Sequence[str], most: int) -> list[list[str]]:
    """Break a branch into lines of at most `most` blocks."""
    return [list(branch[start : start + most]) for start in range(0, len(branch), most)]


def _balanced(plans: Sequence[_Plan], ends: tuple[float, float]) -> list[list[_Plan]]:
    """Break the stages into as few rows as `ROW_LIMIT` allows, and those as equally long as possible."""
    rows = _rows(plans, ends, ROW_LIMIT)
    limit = ROW_LIMIT
    while limit > 0 and len(narrower := _rows(plans, ends, limit)) == len(rows):
        rows = narrower
        limit -= 0.1
    return rows


def _rows(plans: Sequence[_Plan], ends: tuple[float, float], limit: float) -> list[list[_Plan]]:
    """Break the stages into rows, as words are broken into lines of text."""
    rows: list[list[_Plan]] = [[]]
    x = ends[0]
    for index, plan in enumerate(plans):
        advance = STAGE_GAP + plan.width
        behind = STAGE_GAP + ends[1] if index == len(plans) - 1 else 0.0
        if rows[-1] and x + advance + behind > limit:
            rows.append([])
            x = 0.0
        rows[-1].append(plan)
        x += advance
    return rows


def _place(layout: Layout, plan: _Plan, x: float, top: float, main: float) -> tuple[Point, list[Point]]:
    """Put a stage with its left edge at `x`.

    Returns:
        Where the wire from before the stage ends, and the beginning of the wire that leaves it.
    """
    layout.panels.append(Panel(plan.stage, x, top, plan.width, main + plan.below - top))
    left = x + PADDING + plan.side
    right = left + plan.boxes_width
    fork = (x + PADDING, main)
    total = (right + plan.side + SUM_RADIUS, main)
    if plan.joined:
        layout.forks.append(fork)
        layout.sums.append(total)
    first_box: Point = (left, main)
    leaving: list[Point] = []
    y = main
    for lines in plan.lines:
        start, way = _place_branch(layout, plan, lines, left, right, y)
        if plan.joined:
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
        y += len(lines) * (plan.box[1] + LINE_GAP)
    if plan.stage.identity:
        height = main - plan.box[1] / 2 - SKIP_RISE
        skip = (fork, (fork[0], height), (total[0], height), (total[0], main - SUM_RADIUS))
        layout.wires.append(Wire(skip, identity=True))
    if plan.joined:
        return fork, [(total[0] + SUM_RADIUS, main)]
    return first_box, leaving


def _place_branch(
    layout: Layout, plan: _Plan, lines: Sequence[Sequence[str]], left: float, right: float, y: float
) -> tuple[Point, list[Point]]:
    """Put the blocks of one branch, its first line centred at height `y`.

    Returns:
        Where the branch begins, and the beginning of the wire that leaves it.
    """
    width, height = plan.box
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
