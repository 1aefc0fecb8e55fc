"""The course of a search in a few curves: losses, cost, entropy and how far the blocks have decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter, StrMethodFormatter

from quantnas_ext.reporting.figures import FAINT_INK, HAIRLINE, INK, style_axes
from quantnas_ext.reporting.probabilities import block_probabilities, epoch_numbers, most_entropy, series

DECIDED = 0.5

_BLUE, _RED, _GREEN = "#3b6fb6", "#d1605e", "#4f9d69"


def search_figure(history: Mapping[str, Any]) -> Figure:
    """Six panels over the epochs of a search.

    Training and validation loss; expected BitOps, or what other cost there is; entropy of the joint distributions in
    nats, summed over the blocks, against its largest possible value; the largest joint probability of a block (every
    block, median and least); the share of blocks in which it exceeds one half; the weight of the entropy in the
    objective.

    Args:
        history: the history of a search, see ``quantnas_ext.reporting.probabilities.block_probabilities``. Values that
            are null leave a gap in their curve.

    Raises:
        InputError: when the history is incomplete.
    """
    blocks = block_probabilities(history)
    epochs = epoch_numbers(history)
    largest = np.stack([block.probabilities.max(axis=1) for block in blocks], axis=1)

    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.1, wspace=0.04, hspace=0.05)
    figure = Figure(figsize=(9.6, 4.9), layout=engine)
    (loss, cost, entropy), (decision, decided, weight) = figure.subplots(2, 3)

    _curve(loss, epochs, series(history, "train_loss"), _BLUE, "training half")
    _curve(loss, epochs, series(history, "val_loss"), _RED, "validation half")
    _finish(loss, "task loss", epochs, legend=True)

    costs = [key for key in history["epochs"][0] if key.startswith("expected_")]
    if costs:
        shown = "expected_bitops" if "expected_bitops" in costs else costs[0]
        of_cost = "expected " + {"bitops": "BitOps"}.get(name := shown.removeprefix("expected_"), name)
        _curve(cost, epochs, series(history, shown), _BLUE, of_cost)
        cost.yaxis.set_major_formatter(EngFormatter(sep=" "))
        _finish(cost, of_cost, epochs)
    else:
        cost.set_axis_off()
        cost.text(0.5, 0.5, "no cost", fontsize=8.5, color=FAINT_INK, ha="center", va="center")

    entropy.axhline(
        most_entropy(history), color=FAINT_INK, linewidth=0.8, linestyle=(0, (3, 3)), label="all candidates alike"
    )
    _curve(entropy, epochs, series(history, "entropy"), _BLUE, "sum over blocks")
    entropy.set_ylim(bottom=0)
    _finish(entropy, "entropy, nats", epochs, legend=True)

    decision.plot(epochs, largest, color=HAIRLINE, linewidth=0.7)
    decision.lines[0].set_label("each block")
    _curve(decision, epochs, np.median(largest, axis=1), _BLUE, "median")
    _curve(decision, epochs, largest.min(axis=1), _RED, "least decided")
    decision.axhline(DECIDED, color=INK, linewidth=0.5, linestyle=(0, (2, 3)))
    decision.set_ylim(0, 1)
    _finish(decision, "largest joint probability", epochs, legend=True)

    _curve(decided, epochs, (largest > DECIDED).mean(axis=1), _GREEN, "share of blocks")
    decided.set_ylim(0, 1.03)
    decided.yaxis.set_major_formatter(PercentFormatter(1))
    _finish(decided, f"blocks with a candidate above {DECIDED:g}", epochs)

    _curve(weight, epochs, series(history, "entropy_weight"), _BLUE, "entropy weight")
    weight.set_ylim(bottom=0)
    weight.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    _finish(weight, "entropy weight", epochs)
    for axes in (decision, decided, weight):
        axes.set_xlabel("epoch", fontsize=8, color=INK)
    return figure


def _curve(axes: Axes, epochs: np.ndarray, values: np.ndarray, colour: str, name: str) -> None:
    """One curve; single points, with no neighbour to draw a line to, get a dot."""
    alone = np.isfinite(values).sum() == 1
    axes.plot(epochs, values, color=colour, linewidth=1.5, marker="o" if alone else "", markersize=4, label=name)


def _finish(axes: Axes, title: str, epochs: np.ndarray, *, legend: bool = False) -> None:
    """Title, ticks at whole epochs and, where a panel holds several curves, their names between title and panel."""
    axes.set_title(title, fontsize=8.5, fontweight="bold", color=INK, loc="left", pad=18)
    axes.set_xlim(epochs[0], max(epochs[-1], epochs[0] + 1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(axis="y", color=HAIRLINE, linewidth=0.4, alpha=0.6)
    style_axes(axes, size=7)
    if legend:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.02),
            borderaxespad=0,
            borderpad=0,
            ncols=3,
            fontsize=7,
            frameon=False,
            labelcolor=INK,
            handlelength=1.3,
            handletextpad=0.5,
            columnspacing=1.2,
        )
