import copy

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from quantnas_ext.errors import InputError
from quantnas_ext.reporting.distributions import distributions_figure
from quantnas_ext.reporting.progress import search_figure


def joint_probabilities(history, block):
    """Straight from the definition: {(operation, bits): [p in each epoch]}."""
    joint = {}
    for operation in history["labels"][block]["values"]:
        label = f"{block}__{operation}__bits"
        for bits in history["labels"].get(label, {"values": [None]})["values"]:
            curve = []
            for entry in history["epochs"]:
                p = entry["probabilities"][block][history["labels"][block]["values"].index(operation)]
                if bits is not None:
                    p *= entry["probabilities"][label][history["labels"][label]["values"].index(bits)]
                curve.append(p)
            joint[operation, bits] = curve
    return joint


def stacked_layers(axes):
    """What a panel shows, bottom layer first: the thickness of each layer in each epoch, and its colour."""
    layers = []
    for layer in axes.collections:
        vertices = layer.get_paths()[0].vertices
        epochs = np.unique(vertices[:, 0])
        layers.append(([np.ptp(vertices[vertices[:, 0] == x, 1]) for x in epochs], to_hex(layer.get_facecolor()[0])))
    return layers


def test_panels_show_the_joint_probabilities_with_the_chosen_candidate_at_the_bottom(basic_history):
    figure = distributions_figure(basic_history)
    blocks = [label for label, description in basic_history["labels"].items() if description["parent"] is None]
    assert [axes.texts[0].get_text() for axes in figure.axes] == blocks
    for axes, block in zip(figure.axes, blocks, strict=True):
        joint = joint_probabilities(basic_history, block)
        chosen = max(joint, key=lambda candidate: joint[candidate][-1])
        rest = sorted((c for c in joint if c != chosen), key=lambda c: (c[0], c[1] or 0))
        shown = [thickness for thickness, _ in stacked_layers(axes)]
        np.testing.assert_allclose(shown, [joint[candidate] for candidate in [chosen, *rest]], atol=1e-12)
        name = chosen[0] if chosen[1] is None else f"{chosen[0]}, {chosen[1]} bit"
        assert axes.texts[1].get_text() == f"{name}  {joint[chosen][-1]:.2f}"


def test_a_colour_means_the_same_operation_in_every_panel_and_in_the_legend(basic_history):
    figure = distributions_figure(basic_history)
    legend = {patch.get_label(): to_hex(patch.get_facecolor()) for patch in figure.legends[0].legend_handles[:-3]}
    assert len(set(legend.values())) == len(legend)
    for axes in figure.axes:
        operations = basic_history["labels"][axes.texts[0].get_text()]["values"]
        full_colours = {colour for _, colour in stacked_layers(axes)} & set(legend.values())
        assert full_colours == {legend[operation] for operation in operations}


def test_no_words_overlap_each_other_or_a_panel_with_forty_blocks(history_maker):
    operations = ["decenc_5x5_8_g3", "conv_3x3", "skip_connect"]
    figure = distributions_figure(history_maker({f"cell{i}_distil_{i}": operations for i in range(40)}, epochs=4))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the legend finds its place
    renderer = canvas.get_renderer()
    texts = [text for axes in figure.axes for text in axes.texts] + list(figure.legends[0].texts) + figure.texts
    boxes = [text.get_window_extent(renderer) for text in texts]
    width, height = figure.canvas.get_width_height()
    assert len(boxes) > 80
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height
        assert not any(box.overlaps(other) for other in boxes[:i]), texts[i]
        assert not any(box.overlaps(axes.get_window_extent(renderer)) for axes in figure.axes), texts[i]


def test_curves_of_the_search_are_those_of_the_history(basic_history):
    curves = {
        line.get_label(): line.get_ydata() for axes in search_figure(basic_history).axes for line in axes.get_lines()
    }
    blocks = [label for label, description in basic_history["labels"].items() if description["parent"] is None]
    largest = np.array([np.max(list(joint_probabilities(basic_history, block).values()), axis=0) for block in blocks])
    np.testing.assert_allclose(curves["median"], np.median(largest, axis=0))
    np.testing.assert_allclose(curves["least decided"], largest.min(axis=0))
    np.testing.assert_allclose(curves["share of blocks"], (largest > 0.5).mean(axis=0))
    for name, key in (("training half", "train_loss"), ("expected BitOps", "expected_bitops")):
        written = [entry[key] for entry in basic_history["epochs"]]
        np.testing.assert_equal(curves[name], np.array(written, dtype=float))
    assert np.isnan(curves["validation half"][0])


def test_a_search_without_epochs_shows_its_start(history_maker):
    history = history_maker({"head_0": ["conv_3x3", "conv_5x5"]}, epochs=0)
    thickness = [layer[0] for layer, _ in stacked_layers(distributions_figure(history).axes[0])]
    np.testing.assert_allclose(thickness, 0.25)
    search_figure(history)


def _without_probabilities(history):
    del history["epochs"][3]["probabilities"]["body_0__conv_3x3__bits"]


def _unknown_parent(history):
    history["labels"]["body_0__conv_3x3__bits"]["parent"] = ["body_0", "conv_7x7"]


def _no_distribution(history):
    history["epochs"][2]["probabilities"]["body_0__conv_3x3__bits"] = [0.9, 0.9]


def _empty(history):
    history["epochs"].clear()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_without_probabilities, "body_0__conv_3x3__bits"),
        (_unknown_parent, "conv_7x7"),
        (_no_distribution, "body_0__conv_3x3__bits"),
        (_empty, "no epochs"),
    ],
)
def test_an_incomplete_history_is_named(basic_history, spoil, named):
    history = copy.deepcopy(basic_history)
    spoil(history)
    for figure in (distributions_figure, search_figure):
        with pytest.raises(InputError, match=named):
            figure(history)
