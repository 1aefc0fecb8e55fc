"""Which runs lie on the front of quality against cost, and a still picture of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from quantnas_ext.reporting.figures import FAINT_INK, HAIRLINE, INK, shortened, style_axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#a6761d")
"""Of methods: Okabe and Ito's, told apart with any colour vision; two pairs are alike in grey, so shapes differ too."""

SHAPES = {"circle": "o", "square": "s", "triangle-up": "^", "diamond": "D", "cross": "P", "triangle-down": "v"}
"""Of methods: names of Vega, markers of matplotlib. With eight colours and six shapes, 24 pairs differ."""


@dataclass(frozen=True)
class Published:
    """A published network on Set14 at x4.

    Attributes:
        bitops: at an input of 32x32.
        psnr: in dB on Y.
        method: how it was searched.
    """

    bitops: float
    psnr: float
    method: str


PAPER = (
    Published(1.93e9, 27.63, "paper, noise + ADQ"),
    Published(4.65e9, 27.81, "paper, noise + ADQ"),
    Published(16.6e9, 27.91, "paper, noise + ADQ"),
    Published(2.4e9, 27.58, "paper, without noise"),
    Published(4.1e9, 27.65, "paper, without noise"),
)
"""Basic space, trained on DIV2K (Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12, 2024)."""


@dataclass(frozen=True)
class Point:
    """A run in the plane.

    Attributes:
        name: of the run.
        method: of the run.
        cost: what it costs, above 0.
        psnr: in dB.
    """

    name: str
    method: str
    cost: float
    psnr: float


def undominated(points: Sequence[Point]) -> list[Point]:
    """The points than which none is both cheaper (or equal) and better (or equal, and not both equal), by cost."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.psnr)):
        alike = front and (point.cost, point.psnr) == (front[-1].cost, front[-1].psnr)
        if not front or point.psnr > front[-1].psnr or alike:
            front.append(point)
    return front


def hull(points: Sequence[Point]) -> list[Point]:
    """The corners of the front's upper convex hull over the logarithm of the cost, by cost (Andrew's algorithm)."""
    corners: list[Point] = []
    for point in undominated(points):
        while len(corners) > 1 and _turn(corners[-2], corners[-1], point) >= 0:
            corners.pop()
        corners.append(point)
    return corners


def _turn(a: Point, b: Point, c: Point) -> float:
    """Above 0 where the way from a over b to c turns left."""
    (ax, bx, cx) = (math.log(point.cost) for point in (a, b, c))
    return (bx - ax) * (c.psnr - a.psnr) - (b.psnr - a.psnr) * (cx - ax)


def method_styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """For every method a colour and a shape, both different from those of the methods before as long as they last."""
    shapes = list(SHAPES)
    return {
        method: (COLOURS[index % len(COLOURS)], shapes[index % len(shapes)])
        for index, method in enumerate(dict.fromkeys(methods))
    }


def front_figure(
    points: Sequence[Point],
    styles: Mapping[str, tuple[str, str]],
    *,
    cost: str,
    dataset: str,
    bicubic: float | None = None,
    published: Sequence[Published] = (),
) -> Figure:
    """PSNR against a cost, on a logarithmic axis: runs by method, dominated ones dimmed, the front's hull as a line.

    Args:
        points: of the runs.
        styles: colour and shape by method, of ``method_styles``.
        cost: name of the cost, for the axis.
        dataset: name of the images, for the axis.
        bicubic: PSNR of bicubic interpolation, drawn as a line.
        published: points of the literature for the same images and input.
    """
    figure = Figure(figsize=(7.2, 4.3), layout="constrained")
    axes = figure.subplots()
    best, corners = set(undominated(points)), hull(points)
    if bicubic is not None:
        axes.axhline(bicubic, color=FAINT_INK, linewidth=0.9, linestyle=(0, (1, 2)), label="bicubic")
    if len(corners) > 1:
        xs, ys = [point.cost for point in corners], [point.psnr for point in corners]
        axes.plot(xs, ys, color=INK, linewidth=1, linestyle=(0, (5, 3)), label="hull of the front", zorder=1)
    for method, (colour, shape) in styles.items():
        of = [point for point in points if point.method == method]
        for strong in (False, True):
            some = [point for point in of if (point in best) == strong]
            if some:
                axes.scatter(
                    [point.cost for point in some],
                    [point.psnr for point in some],
                    s=52,
                    marker=SHAPES[shape],
                    color=colour if strong else "none",
                    edgecolor=colour,
                    alpha=1 if strong else 0.55,
                    zorder=3 if strong else 2,
                )
    named = {point.method for point in points}
    handles: list[Artist] = [
        Line2D([], [], linestyle="", marker=SHAPES[shape], color=colour, label=shortened(method))
        for method, (colour, shape) in styles.items()
        if method in named
    ]
    if best < set(points):
        handles.append(Line2D([], [], linestyle="", marker="o", color=FAINT_INK, mfc="none", label="hollow: dominated"))
    for method, marker in zip(dict.fromkeys(one.method for one in published), ("*", "x"), strict=False):
        of_it = [one for one in published if one.method == method]
        axes.scatter([p.bitops for p in of_it], [p.psnr for p in of_it], s=60, marker=marker, color=INK, label=method)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if len({point.cost for point in points} | {one.bitops for one in published}) == 1:
        axes.set_xlim(points[0].cost / 2, points[0].cost * 2)
    axes.set_xlabel(f"{cost} (logarithmic)", fontsize=8.5, color=INK)
    axes.set_ylabel(f"PSNR on {shortened(dataset)}, dB", fontsize=8.5, color=INK)
    axes.grid(color=HAIRLINE, linewidth=0.4, alpha=0.6)
    style_axes(axes, size=7.5)
    handles += axes.get_legend_handles_labels()[0]
    axes.legend(
        handles=handles, fontsize=7.5, frameon=False, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return figure
