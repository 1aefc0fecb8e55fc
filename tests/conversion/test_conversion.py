"""Any network as a space of precisions: exactness, identity of parameters, what is left and why, bad input."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nni
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, Repeat
from nni.nas.space import model_context
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import TensorDataset

from quantnas_ext.architecture import Architecture
from quantnas_ext.conversion import ConversionReport, QuantizedSpace, quantize
from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Penalty
from quantnas_ext.errors import InputError
from quantnas_ext.nn import MutableQuantConv2d
from quantnas_ext.quantization import QuantConv2d
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import from_timm

X = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Layers that can be converted, with all that a convolution can be told, and layers that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect")
        self.b = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=2, dilation=2, groups=4, bias=False))
        self.up = nn.ConvTranspose2d(8, 8, 2)
        self.normed = weight_norm(nn.Conv2d(8, 8, 1))
        self.twice = nn.Conv2d(8, 8, 1)
        self.again = self.twice
        self.unused = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.unused.weight
        self.attention = nn.MultiheadAttention(8, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(self.twice(self.normed(self.up(self.b(self.a(x)))))).mean((2, 3))
        x = self.tied(nn.functional.linear(x, self.unused.weight))
        return self.head(self.attention(x[None], x[None], x[None])[0][0])


def test_a_network_computes_the_same_with_the_same_parameters_and_the_rest_is_left_with_its_reason() -> None:
    torch.manual_seed(0)
    net = Net().eval()
    before, parameters, state = net(X), {name: id(p) for name, p in net.named_parameters()}, torch.get_rng_state()
    space = QuantizedSpace(net, [4, 8, 32], X)
    assert torch.equal(state, torch.get_rng_state())
    now = {name: id(p) for name, p in net.named_parameters()}
    assert {name: now[name] for name in parameters} == parameters
    report = space.report
    assert {(layer.path, layer.label, layer.signed) for layer in report.converted} == {
        ("a", "a__bits", True),
        ("b.1", "b_1__bits", False),
        ("head", "head__bits", True),
    }
    reasons = {layer.path: layer.reason for layer in report.left}
    assert reasons == {
        "up": "there is no quantized ConvTranspose2d",
        "normed": "its weight is made from other parameters, as weight norm does",
        "twice": "one module stands in 2 places",
        "unused": "it is never called as a module",
        "tied": "another module has the same weight",
        "attention": "there is no quantized MultiheadAttention",
        "attention.out_proj": "it is never called as a module",
    }
    assert all(path in str(report) and reason in str(report) for path, reason in reasons.items())
    assert list(space.simplify()) == ["a__bits", "b_1__bits", "head__bits"]
    weights = {name: net.get_parameter(name) for name in parameters}
    for bits, equal in ((32, True), (4, False)):
        frozen = space.freeze(dict.fromkeys(space.simplify(), bits)).eval()
        assert all(torch.equal(p, frozen.get_parameter(f"model.{name}")) for name, p in weights.items())
        assert torch.equal(frozen(X), before) is equal


class Candidates(ModelSpace):
    """Only the second candidate and the third block let negative values through."""

    def __init__(self, bits: Any = None) -> None:
        super().__init__()
        self.first = LayerChoice({"relu": nn.ReLU(), "conv": nn.Conv2d(3, 3, 1), "two": _two()}, label="first")
        self.repeat = Repeat(lambda index: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nni.choice("depth", [1, 3]))
        self.last = nn.Conv2d(3, 2, 1)
        if bits is not None:
            quantize(self, bits, X.abs(), share="candidate")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.repeat(self.first(x)))


def _two() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid(), nn.Conv2d(3, 3, 1), nn.Sigmoid())


def test_signs_are_those_of_all_candidates_and_blocks() -> None:
    space = Candidates()
    nn.init.constant_(space.first["conv"].weight, -1.0)
    report = quantize(space, [4, 8], X.abs(), share="candidate")
    signed = {layer.path: layer.signed for layer in report.converted}
    assert signed == {
        "first.conv": False,
        "first.two.0": False,
        "first.two.2": False,
        "repeat.blocks.0.0": True,
        "repeat.blocks.1.0": False,
        "repeat.blocks.2.0": False,
        "last": False,
    }
    labels = {layer.path: layer.label for layer in report.converted}
    assert labels["first.two.0"] == labels["first.two.2"] == "first__two__bits" and labels["last"] == "last__bits"


def test_a_converted_space_is_frozen_or_built_for_an_architecture() -> None:
    sample = {key: choice.values[-1] for key, choice in Candidates([4, 8]).simplify().items()}
    sample |= {"first": "two", "first__two__bits": 4}
    frozen = Candidates([4, 8]).freeze(sample)
    layers = [module for module in frozen.modules() if isinstance(module, QuantConv2d)]
    assert [layer.precision.weight_bits for layer in layers] == [4, 4, 8, 8, 8, 8]
    assert not any(isinstance(module, MutableQuantConv2d) for module in frozen.modules())
    with model_context(sample), pytest.raises(InputError, match=r"call freeze\(sample\)"):
        Candidates([4, 8])
    with model_context({"0__bits": 4, "2__bits": 8, "4__bits": 8}):
        built = QuantizedSpace(small_net(), [4, 8], X)
    assert [layer.precision.weight_bits for layer in built.modules() if isinstance(layer, QuantConv2d)] == [4, 8]


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(100, 2))


def test_a_search_moves_every_logit_and_the_found_network_keeps_weights_and_costs_what_is_counted_independently(
    tmp_path: Path, independent_bitops: Callable[..., float]
) -> None:
    torch.manual_seed(0)
    space, cost = QuantizedSpace(small_net(), [4, 8], X, fixed={"4": "w8a8"}), BitOps((1, 3, 9, 9))
    data = TensorDataset(torch.randn(8, 3, 9, 9), torch.randn(8, 2))
    strategy = QuantNAS(costs=[Penalty(cost, 1e-3)], architecture_learning_rate=0.1)
    evaluator = AccelerateEvaluator(data, data, epochs=1, steps_per_epoch=4, batch_size=2)
    sample = run_experiment(space, evaluator, strategy, tmp_path)
    logits = {name: p.detach().clone() for name, p in strategy.distribution.logits.items()}
    assert list(logits) == ["0__bits", "2__bits"] and all(p.abs().min() > 0.01 for p in logits.values())
    trained, network = strategy.supernet.state_dict(), strategy.derive()
    assert all(torch.equal(trained[name], p) for name, p in network.named_parameters() if name.endswith("weight"))
    linear = 8 * 8 * 100 * 2
    assert cost.of_network(network) == independent_bitops(network, (1, 3, 9, 9)) + linear
    assert set(sample) == set(logits)


def untouched(model: nn.Module, act: Callable[[], Any], sentence: str) -> None:
    modules, state = dict(model.named_modules()), copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=sentence):
        act()
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks or "forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"bits": [1, 8]}, "1 bits"),
        ({"bits": []}, "empty"),
        ({"example_input": torch.zeros(1, 5, 9, 9)}, "cannot run the example input"),
        ({"example_input": (X, X)}, "cannot run the example input"),
        ({"skip": ["con*"]}, "unknown layer, or pattern without a layer, 'con"),
        ({"fixed": {"7": 8}}, "unknown layer"),
        ({"fixed": {"0": 17}}, "17 bits"),
        ({"skip": ["*"]}, "nothing in Sequential can be quantized"),
        ({"share": "block"}, "unknown way to share"),
        ({"share": lambda path: 3}, "share gives 3"),
        ({"share": lambda path: "a.b"}, "dot"),
        ({"signed": "yes"}, "signed='yes'"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_the_model_as_it_was(arguments: dict[str, Any], sentence: str) -> None:
    net = small_net()
    untouched(net, lambda: quantize(net, **{"bits": [4, 8], "example_input": X, **arguments}), sentence)


def test_networks_that_cannot_be_converted_are_refused() -> None:
    plain = nn.Sequential(nn.ReLU())
    untouched(plain, lambda: quantize(plain, [4], X), "no convolution and no linear layer")
    net = small_net()
    quantize(net, [4, 8], X)
    untouched(net, lambda: QuantizedSpace(net, [4, 8], X), "has quantized layers already")

    class Wide(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.conv = MutableConv2d(3, nni.choice("width", [4, 8]), 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    wide = Wide()
    untouched(wide, lambda: quantize(wide, [4], X), "its out_channels is searched")


def test_a_timm_network_keeps_its_weights_and_its_architecture_file_builds_it_again(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(1)
    original = timm.create_model("test_resnet", num_classes=5).eval()
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    arguments = {"model": "test_resnet", "bits": [4, 8, 32], "num_classes": 5}
    space = from_timm(**arguments, checkpoint=str(tmp_path / "weights.pth"))
    assert isinstance(space.report, ConversionReport) and len(space.report.converted) > 5
    image = torch.randn(1, 3, 64, 64)
    full = space.freeze(dict.fromkeys(space.simplify(), 32)).eval()
    assert torch.equal(full(image), original(image))
    sample = {label: choice.values[i % 2] for i, (label, choice) in enumerate(space.simplify().items())}
    cost = BitOps((1, 3, 64, 64))
    Architecture.of("timm", arguments, sample, costs=[cost]).save(tmp_path / "architecture.yaml")
    loaded = Architecture.load(tmp_path / "architecture.yaml")
    assert loaded.costs[0].value == cost.of_network(loaded.build()) == cost.of_network(space.freeze(sample))
    frozen, built = space.freeze(sample), loaded.build()
    built.load_state_dict(frozen.state_dict())
    assert torch.equal(built.eval()(image), frozen.eval()(image))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "resnet81"}, "did you mean 'resnet"),
        ({"model": "test_resnet", "checkpoint": "nowhere.pth"}, "'nowhere.pth' does not exist"),
        ({"model": "test_resnet", "num_classes": -1}, "num_classes"),
        ({"model": "test_resnet", "input_size": [32, 32]}, "timm cannot make 'test_resnet'"),
    ],
)
def test_bad_names_and_weights_of_timm_are_sentences(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        from_timm(**arguments)
