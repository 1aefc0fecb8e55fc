"""Small spaces, their data and searches, for tests of several rooms."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nni
import torch
from nni.mutable import Categorical
from nni.nas.evaluator.pytorch.lightning import LightningModule
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn
from torch.utils.data import TensorDataset

from quantnas_ext.costs.cost import BitOps, Cost, sample_cost
from quantnas_ext.costs.goals import Penalty
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import Choice, ChoiceTree
from quantnas_ext.nn import MutableQuantConv2d
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRBasicSpace

COST = BitOps((1, 3, 8, 8))


def tiny_space() -> SRBasicSpace:
    torch.manual_seed(0)
    operations = {"head": ["conv_3x3", "conv_5x5"], "body": ["fac_3x3", "conv_5x5"], "skip": ["conv_1x1", "conv_3x3"]}
    return SRBasicSpace(
        scale=2, width=6, cells=1, adq=False, bits=[4, 8], upsample=["conv_3x3"], tail=["conv_1x1"], **operations
    )


def tiny_data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    high = torch.rand(16, 3, 16, 16, generator=generator)
    return TensorDataset(torch.nn.functional.avg_pool2d(high, 2), high)


def search(
    tmp_path: Path,
    *,
    penalty: float = 0.0,
    entropy: float = 0.0,
    epochs: int = 3,
    strategy: dict[str, Any] | None = None,
    **evaluator: Any,
) -> tuple[QuantNAS, dict[str, Any], list[EpochRecord]]:
    records: list[EpochRecord] = []
    options = {"costs": [Penalty(COST, penalty)], "entropy": entropy, "architecture_learning_rate": 0.3}
    searcher = QuantNAS(**{**options, **(strategy or {})})
    evaluator = {"epochs": epochs, "steps_per_epoch": 8, "batch_size": 2, "on_epoch": records.append, **evaluator}
    sample = run_experiment(
        tiny_space(), AccelerateEvaluator(tiny_data(), tiny_data(), **evaluator), searcher, tmp_path / "nni"
    )
    return searcher, sample, records


class RestorationModule(LightningModule):
    """The smallest Lightning module that NNI's own evaluator takes."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        return torch.nn.functional.l1_loss(self.model(inputs), targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


class TwoWays(ModelSpace):
    """A 1x1 and a 3x3 convolution to choose from, behind a layer of fixed precision."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed = MutableQuantConv2d(2, 2, 1, bits=8)
        candidates = {f"conv{k}": self.convolution(k) for k in (1, 3)}
        self.layer = LayerChoice(candidates, label="layer")

    def convolution(self, size: int) -> nn.Module:
        bits = Categorical([4, 8], label=f"bits{size}")
        return MutableQuantConv2d(2, 2, size, padding=size // 2, bias=False, bits=bits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.fixed(x))


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(4, 2, 4, 4, generator=generator), torch.rand(4, 2, 4, 4, generator=generator)


def prepared(**strategy: Any) -> tuple[TwoWays, QuantNAS]:
    torch.manual_seed(0)
    return TwoWays(), QuantNAS(**{"architecture_learning_rate": 0.1, **strategy})


class LinkedSpace(ModelSpace):
    """Two blocks, one inside the other's candidate, whose layers share one precision; a third block on its own."""

    def __init__(self) -> None:
        super().__init__()
        inner = LayerChoice({"a": self.conv("shared", 3), "b": nn.ReLU()}, label="inner")
        self.outer = LayerChoice({"x": inner, "y": self.conv("shared"), "z": self.conv("own", 3)}, label="outer")
        self.second = LayerChoice({"x": self.conv("shared"), "y": nn.Identity()}, label="second")
        self.third = LayerChoice({"x": self.conv("last"), "y": self.conv("last", 3), "z": nn.ReLU()}, label="third")

    def conv(self, label: str, kernel: int = 1) -> nn.Module:
        return MutableQuantConv2d(3, 3, kernel, padding=kernel // 2, bits=nni.choice(label, [2, 4, 8]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.outer(x)))


def samples(tree: ChoiceTree, choices: list[Choice] | None = None) -> Iterator[dict[str, Any]]:
    """All architectures of a space, each once and with the choices that matter for it."""
    if choices is None:
        yield from {str(sample): sample for sample in map(tree.complete, samples(tree, tree.roots()))}.values()
        return
    if not choices:
        yield {}
        return
    first, *rest = choices
    for value in first.values:
        for below in samples(tree, tree.children(first.label, value)):
            for others in samples(tree, rest):
                yield {first.label: value, **below, **others}


def all_architectures(
    space: ModelSpace, distribution: ArchitectureDistribution, costs: list[Cost]
) -> list[tuple[dict[str, Any], float, list[float]]]:
    """Every architecture with its log joint probability and costs, without any of the code under test."""
    logs = {label: logits.detach().double().log_softmax(0) for label, logits in distribution.logits.items()}
    values = {choice.label: choice.values for choice in distribution.tree}
    terms = [cost.terms(space) for cost in costs]
    return [
        (
            sample,
            sum(float(logs[label][values[label].index(value)]) for label, value in sample.items()),
            [sample_cost(of, sample) for of in terms],
        )
        for sample in samples(distribution.tree)
    ]


class NestedSpace(ModelSpace):
    """A choice inside a candidate, a precision below that, and a precision that two candidates share."""

    def __init__(self) -> None:
        super().__init__()
        inner = LayerChoice({"a": self.conv("deep"), "b": nn.ReLU()}, label="inner")
        self.outer = LayerChoice({"x": inner, "y": self.conv("shared"), "z": self.conv("shared")}, label="outer")

    def conv(self, label: str) -> nn.Module:
        return MutableQuantConv2d(2, 2, 1, bits=nni.choice(label, [2, 4, 8]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(x)


class TwiceShared(ModelSpace):
    """A precision that two candidates of one block and a nested candidate of another share."""

    def __init__(self) -> None:
        super().__init__()
        inner = LayerChoice({"a": self.conv(), "b": nn.ReLU()}, label="inner")
        self.first = LayerChoice({"x": self.conv(), "y": self.conv(), "z": nn.ReLU()}, label="first")
        self.second = LayerChoice({"x": inner, "y": nn.ReLU()}, label="second")

    def conv(self) -> nn.Module:
        return MutableQuantConv2d(2, 2, 1, bits=nni.choice("shared", [2, 4, 8]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))
