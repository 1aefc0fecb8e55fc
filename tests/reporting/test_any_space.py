"""Searches of spaces with nested choices, shared precisions and precisions alone, from the search to the pictures."""

import json
import math
from pathlib import Path
from typing import Any

import nni
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace
from small_searches import LinkedSpace, NestedSpace
from torch.utils.data import TensorDataset

from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.nn import Add, MutableQuantConv2d
from quantnas_ext.reporting import probabilities
from quantnas_ext.reporting.candidates import Candidate, chosen_candidates
from quantnas_ext.reporting.distributions import candidate_name, distributions_figure
from quantnas_ext.reporting.drawing import architecture_figure
from quantnas_ext.reporting.figures import save_figure
from quantnas_ext.reporting.probabilities import block_probabilities, most_entropy
from quantnas_ext.reporting.progress import search_figure
from quantnas_ext.runs.history import SearchHistory
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces.diagram import Stage


class Layers(ModelSpace):
    """Layers whose only choice is their bits; two share them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = (
            MutableQuantConv2d(3, 3, 1, bits=nni.choice(label, [2, 4, 8])) for label in ("stem", "both", "both")
        )
        self.add = Add()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.add(self.left(x), self.right(x))


STAGES = {
    Layers: [Stage("layers", [["stem", "both"]])],
    NestedSpace: [Stage("block", [["outer"]])],
    LinkedSpace: [Stage("blocks", [["outer", "second", "third"]], identity=True)],
}


def searched(kind: type[ModelSpace], channels: int, folder: Path) -> tuple[QuantNAS, dict[str, Any], dict[str, Any]]:
    """The strategy after a short search, the sample it found, and the history as it lies on the disk."""
    torch.manual_seed(0)
    images = torch.rand(8, channels, 6, 6)
    space, strategy = kind(), QuantNAS(entropy=0.1, architecture_learning_rate=0.3)
    history = SearchHistory(folder / "history.json", ChoiceTree.of(space))
    data = TensorDataset(images, images)
    evaluator = AccelerateEvaluator(data, data, epochs=3, batch_size=2, on_epoch=history.add)
    sample = run_experiment(space, evaluator, strategy, folder / "nni")
    return strategy, sample, json.loads((folder / "history.json").read_text())


@pytest.mark.parametrize(("kind", "channels"), [(Layers, 3), (NestedSpace, 2), (LinkedSpace, 3)])
def test_a_search_of_any_space_is_plotted_and_drawn(kind: type[ModelSpace], channels: int, tmp_path: Path) -> None:
    strategy, sample, history = searched(kind, channels, tmp_path)
    distribution = strategy.distribution
    blocks = {block.block: block for block in block_probabilities(history)}
    chosen = chosen_candidates(distribution.tree, sample)
    for label, confidence in distribution.confidences().items():
        block = blocks[label]
        np.testing.assert_allclose(block.probabilities.sum(axis=1), 1, rtol=1e-6)
        assert block.probabilities[-1].max() == pytest.approx(confidence, rel=1e-5)
        if label in chosen:  # a shared precision of candidates that lost is not
            likeliest = block.candidates[block.chosen]
            assert likeliest.operation == chosen[label].operation
            assert set(likeliest.precisions) <= set(chosen[label].precisions)
    assert most_entropy(history) == pytest.approx(sum(math.log(len(block.candidates)) for block in blocks.values()))
    save_figure(distributions_figure(history), tmp_path / "distributions.png")
    save_figure(search_figure(history), tmp_path / "search.png")
    save_figure(architecture_figure(STAGES[kind], chosen, ends=("input", "output")), tmp_path / "architecture.png")
    assert len(distributions_figure(history).axes) == len(blocks)


def test_names_are_read_from_the_outside_in_and_shared_precisions_belong_to_each_candidate() -> None:
    tree = ChoiceTree.of(LinkedSpace())
    sample = {"outer": "x", "inner": "a", "shared": 4, "second": "x", "third": "y", "last": 8}
    chosen = chosen_candidates(tree, sample)
    names = {label: candidate_name(candidate) for label, candidate in chosen.items()}
    assert names == {
        "outer": "x / a, 4 bit",
        "second": "x, 4 bit",
        "third": "y, 8 bit",
        "shared": "4 bit",
        "last": "8 bit",
    }
    texts = [text.get_text() for text in architecture_figure(STAGES[LinkedSpace], chosen).axes[0].texts]
    assert texts.count("4 bit") == 3 and "x / a" in texts  # two blocks and the legend


def test_a_block_of_too_many_candidates_is_shown_choice_by_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ChoiceTree.of(NestedSpace())
    labels = {c.label: {"values": list(c.values), "parent": c.parent and list(c.parent), "kind": c.kind} for c in tree}
    even = {label: [1 / len(of["values"])] * len(of["values"]) for label, of in labels.items()}
    history = {"labels": labels, "epochs": [{"epoch": 0, "probabilities": even}]}
    whole = {block.block: block.candidates for block in block_probabilities(history)}
    assert set(whole) == {"outer", "shared"} and len(whole["outer"]) == 6
    assert whole["outer"][0] == Candidate("x / a", Candidate.at(2).precisions)
    entropy = most_entropy(history)
    monkeypatch.setattr(probabilities, "MOST_CANDIDATES", 4)
    split = {block.block: [c.operation for c in block.candidates] for block in block_probabilities(history)}
    assert split == {"outer": ["x", "y", "z"], "inner": ["a", "a", "a", "b"], "shared": [""] * 3}
    assert most_entropy(history) == entropy == pytest.approx(math.log(6) + math.log(3))
