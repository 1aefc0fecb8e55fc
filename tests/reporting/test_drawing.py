import random

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from quantnas_ext.costs.counted import CountedCost
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.reporting.candidates import Candidate, chosen_candidates
from quantnas_ext.reporting.drawing import architecture_figure, rounded
from quantnas_ext.reporting.layout import lay_out
from quantnas_ext.spaces import SRBasicSpace
from quantnas_ext.spaces.diagram import Stage

BASIC = [
    Stage("head", [["head_0", "head_1"]]),
    Stage("body cell", [["body_0", "body_1"], ["body_skip"]], identity=True, repeat=3),
    Stage("upsample", [["upsample_0"]]),
    Stage("tail", [["tail_0", "tail_1"]], identity=True),
]
CELLS = [Stage(f"cell {i}", [[f"body_{i}_0", f"body_{i}_1"], [f"distil_{i}"]], identity=i % 2 == 0) for i in range(12)]
ONE_LONG_BRANCH = [Stage("layers", [[f"layer_{i}" for i in range(30)]]), Stage("classifier", [["last"]])]
LONG_PARALLEL = [
    Stage("before", [["first"]], repeat=2),
    Stage("all", [[f"a_{i}" for i in range(17)], [f"b_{i}" for i in range(10)], ["c"]], identity=True),
    Stage("after", [["last"]]),
]
FORKED = [
    Stage("cell", [["body_1", "body_2"], ["skip"]], identity=True, repeat=3, entrance=["body_0"]),
    Stage("plain", [["a"], ["b", "c", "d"]], entrance=["e", "f"]),
    Stage("tail", [["tail_0"]], identity=True),
]
DISTILLING = [
    Stage("cell", [[f"body_{i}" for i in range(4)]], identity=True, repeat=4, taps=[f"distil_{i}" for i in range(3)]),
    Stage("long", [[f"a_{i}" for i in range(12)]], taps=[f"b_{i}" for i in range(12)]),
    Stage("tail", [["tail_0"]]),
]
NETWORKS = {
    "forked": FORKED,
    "distilling": DISTILLING,
    "basic": BASIC,
    "cells": CELLS,
    "one long branch": ONE_LONG_BRANCH,
    "long parallel": LONG_PARALLEL,
}

every_network = pytest.mark.parametrize("stages", NETWORKS.values(), ids=NETWORKS.keys())


def blocks_of(stages):
    return [block for stage in stages for block in stage.blocks]


def choose(stages, seed=0):
    """Made-up candidates, and the texts that have to stand on each block."""
    chance = random.Random(seed)
    chosen, texts = {}, {}
    for block in blocks_of(stages):
        operation = chance.choice(["conv_3x3", "decenc_5x5_8_g3", "skip_connect", "x / a", ""])
        several = [Candidate.at(bits) for bits in chance.choice([(4,), (8,), ("w4a8",), (32,), (8, 4, 4), (2, 4, 8)])]
        if operation == "skip_connect":
            several = []
        chosen[block] = Candidate.of(operation, several)
        name = {
            ("4",): "4 bit",
            ("8",): "8 bit",
            ("w4a8",): "W4 A8",
            ("32",): "32 bit",
            ("8", "4", "4"): "4 bit, 8 bit",
            ("2", "4", "8"): "2 bit to 8 bit",
            (): "",
        }[tuple(map(str, chosen[block].precisions))]
        texts[block] = [text for text in (block, operation, name) if text]
    return chosen, texts


def patches(figure, kind):
    return {p.get_gid().split(":", 1)[1]: p for p in figure.axes[0].patches if (p.get_gid() or "").startswith(kind)}


@every_network
def test_every_block_is_drawn_once_with_its_operation_and_bits_inside_its_box(stages):
    choices, expected = choose(stages)
    figure = architecture_figure(stages, choices)
    renderer = FigureCanvasAgg(figure).get_renderer()
    extents = [(text.get_text(), text.get_window_extent(renderer)) for text in figure.axes[0].texts]
    boxes = patches(figure, "block:")
    assert sorted(boxes) == sorted(blocks_of(stages))
    assert len([p for p in figure.axes[0].patches if (p.get_gid() or "").startswith("block:")]) == len(boxes)
    for block, box in boxes.items():
        frame = box.get_window_extent(renderer)
        inside = [text for text, extent in extents if frame.contains(*extent.min) and frame.contains(*extent.max)]
        assert inside == expected[block]


@every_network
def test_nothing_overlaps_and_no_wire_runs_through_a_box_or_a_word(stages):
    choices, _ = choose(stages)
    costs = [CountedCost("bitops", 1.9e9, (1, 3, 32, 32)), CountedCost("bytes", 35_000)]
    figure = architecture_figure(stages, choices, title="Found architecture", costs=costs)
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    boxes = [box.get_window_extent(renderer) for box in patches(figure, "block:").values()]
    panels = [panel.get_window_extent(renderer) for panel in patches(figure, "stage:").values()]
    words = [text.get_window_extent(renderer) for text in axes.texts]
    for kind in (boxes, panels, words):
        assert not any(a.overlaps(b) for i, a in enumerate(kind) for b in kind[:i])
    picture = Bbox.from_bounds(0, 0, *figure.canvas.get_width_height())
    assert all(picture.contains(*extent.min) and picture.contains(*extent.max) for extent in boxes + panels + words)

    wires = [patch for patch in axes.patches if patch.get_gid() in ("wire", "identity")]
    assert len(wires) > len(boxes)
    obstacles = np.array([[box.padded(-1).min, box.padded(-1).max] for box in boxes] + [[w.min, w.max] for w in words])
    for wire in wires:
        for line in wire.get_path().to_polygons(axes.transData, closed_only=False):
            points = np.concatenate([np.linspace(a, b, 100) for a, b in zip(line, line[1:], strict=False)])[:, None]
            inside = (points > obstacles[:, 0]) & (points < obstacles[:, 1])  # [points, obstacles, x and y]
            assert not inside.all(axis=2).any()


@every_network
def test_wires_lead_from_the_input_through_every_block_to_the_output(stages):
    layout = lay_out(stages, (1.0, 0.6), (0.7, 0.7))
    starts = [tuple(np.round(wire.points[0], 6)) for wire in layout.wires]
    ends = [tuple(np.round(wire.points[-1], 6)) for wire in layout.wires]
    for box in layout.boxes:
        middle = box.y + box.height / 2
        assert ends.count((round(box.x, 6), round(middle, 6))) == 1
        assert starts.count((round(box.x + box.width, 6), round(middle, 6))) == 1
    assert starts.count((0.7, round(layout.input[1], 6))) == 1
    assert ends.count(tuple(np.round(layout.output, 6))) == 1
    joined = [stage for stage in stages if len(stage.branches) > 1 or stage.identity or stage.taps]
    more = sum(max(0, len(s.taps) - 1) + bool(s.entrance and s.identity) for s in stages)
    assert len(layout.sums) == len(joined) == len(layout.forks) - more
    assert sum(wire.identity for wire in layout.wires) == sum(stage.identity for stage in stages)
    for wire in layout.wires:
        for (x0, y0), (x1, y1) in zip(wire.points, wire.points[1:], strict=False):
            assert x0 == pytest.approx(x1) or y0 == pytest.approx(y1)


def test_repeats_cost_and_ends_are_written():
    choices, _ = choose(BASIC)
    costs = [CountedCost("bitops", 1.93e9, (1, 3, 32, 32)), CountedCost("bitops", 123.5e9, (1, 3, 256, 256))]
    costs += [CountedCost("bytes", 35_210), CountedCost("macs", 5e6, (1, 1, 28, 28))]
    figure = architecture_figure(BASIC, choices, title="Found", costs=costs, ends=("image", "result"))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"Found", "× 3", "image", "result", "head", "body cell", "upsample", "tail"} <= set(texts)
    (line,) = [text for text in texts if "BitOps" in text]
    assert "1.93 GBitOps at 32" in line and "123.50 GBitOps at 256" in line and "35.21 kB" in line
    assert "5.00 M macs at 1x28x28" in line


@pytest.mark.parametrize("missing", ["body_1", "body_1__conv_3x3__bits"])
def test_a_missing_choice_is_named(missing):
    tree, choices = ChoiceTree.of(SRBasicSpace(scale=2, width=6, adq=False)), {}
    for block in blocks_of(BASIC):
        choices |= {block: "conv_3x3", f"{block}__conv_3x3__bits": 8}
    architecture_figure(BASIC, chosen_candidates(tree, choices))
    del choices[missing]
    with pytest.raises(InputError, match=missing):
        chosen_candidates(tree, choices)


def test_a_block_that_the_space_does_not_have_is_named():
    with pytest.raises(InputError, match="unknown block in the diagram 'head_1'; did you mean 'head_0'"):
        architecture_figure(BASIC, {"head_0": Candidate.of("conv_3x3", [Candidate.at(8)])})


def test_a_branch_without_blocks_is_refused():
    with pytest.raises(InputError, match="without blocks"):
        architecture_figure([Stage("empty", [[]])], {})


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Stage("s", [["a"]], taps=["b", "c"]), "has 2 taps"),
        (Stage("s", [["a"], ["b"]], taps=["c"]), "has 1 taps"),
        (Stage("s", [["a"]], entrance=["b"]), "entrance to a single branch"),
    ],
)
def test_a_stage_that_cannot_be_drawn_is_refused(stage, message):
    with pytest.raises(InputError, match=message):
        architecture_figure([stage], {})


def test_rounding_keeps_the_ends_of_a_wire():
    path = rounded([(0, 0), (1, 0), (1, 2)], radius=0.3)
    np.testing.assert_allclose(path.vertices[[0, -1]], [(0, 0), (1, 2)])
    np.testing.assert_allclose(path.vertices[1:4], [(0.7, 0), (1, 0), (1, 0.3)])
