"""What a drawing of an architecture is made of: parts with their places in inches, y downwards, and the distances."""

from __future__ import annotations

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
    """Everything that is drawn, within (0, 0) and (``width``, ``height``).

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
