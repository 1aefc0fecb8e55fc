"""NNI's DARTS, unmodified, searches our spaces."""

from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.evaluator.pytorch.lightning import DataLoader, Lightning, Trainer
from nni.nas.strategy import DARTS
from small_searches import RestorationModule
from torch.utils.data import TensorDataset

from quantnas_ext.architecture import Architecture
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.nni_darts import MixedPrecisionLayer, nni_darts
from quantnas_ext.spaces import build_space

PAIR = ["conv_1x1", "conv_3x3"]
SPACES: list[tuple[str, dict[str, Any]]] = [
    ("sr_basic", {"scale": 2, "width": 6, "cells": 2, "bits": [4, 8]}),
    ("sr_basic", {"scale": 2, "width": 6, "cells": 1, "bits": [32]}),
    ("sr_rfdn", {"scale": 2, "width": 12, "cells": 1, **dict.fromkeys(("body", "distil", "upsample", "tail"), PAIR)}),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "arguments"), SPACES)
def test_it_derives_an_architecture_of_the_space_with_the_supernets_weights(
    name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    low = torch.rand(4, 3, 16, 16)
    data = TensorDataset(low, torch.nn.functional.interpolate(low, scale_factor=2))
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", enable_progress_bar=False, logger=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    loaders = [DataLoader(data, batch_size=2) for _ in range(2)]
    evaluator = Lightning(RestorationModule(), trainer, train_dataloaders=loaders[0], val_dataloaders=loaders[1])
    space, strategy = build_space(name, arguments), nni_darts(arc_learning_rate=0.1, gradient_clip_val=5.0)
    assert type(strategy) is DARTS
    tree = ChoiceTree.of(space)
    sample = run_experiment(space, evaluator, strategy, tmp_path)

    logits = strategy._arch_parameters
    assert logits.keys() == {choice.label for choice in tree} == sample.keys()
    assert all(sample[choice.label] == choice.values[int(logits[choice.label].argmax())] for choice in tree)
    searched = [logits[choice.label] for choice in tree if len(choice.values) > 1]
    assert all(float(alpha.grad.abs().max()) > 0 for alpha in searched)
    moved = [float(alpha.detach().abs().max()) > 0.02 for alpha in searched]  # from a start of about 0.001
    assert sum(moved) > 0.8 * len(moved)
    network = Architecture.of(name, arguments, tree.complete(sample)).build().eval()
    frozen = strategy.supernet.freeze(sample).eval()
    network.load_state_dict(frozen.state_dict())
    assert torch.equal(network(low), frozen(low))


def test_a_layer_with_all_weight_on_one_precision_is_the_layer_of_that_precision() -> None:
    torch.manual_seed(0)
    strategy = nni_darts()
    supernet = strategy.mutate_model(build_space("sr_basic", {"scale": 2, "width": 6, "cells": 1, "bits": [2, 8]}))
    layer = next(module for module in supernet.modules() if isinstance(module, MixedPrecisionLayer))
    x = torch.rand(2, 3, 9, 9)
    outputs = {}
    for index, bits in enumerate((2, 8)):
        layer.alpha.data = torch.full((2,), -100.0).index_fill(0, torch.tensor(index), 100.0)
        outputs[bits] = layer(x)
        concrete = layer.freeze({layer.bits_choice.label: bits})
        assert torch.equal(outputs[bits], concrete(x)) and concrete.precision.weight_bits == bits
    layer.alpha.data.zero_()
    torch.testing.assert_close(layer(x), (outputs[2] + outputs[8]) / 2)
    layer(x).square().mean().backward()
    assert layer.alpha.grad.abs().min() > 0 and layer.layers[0].weight is layer.layers[1].weight
