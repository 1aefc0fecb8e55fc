"""What users of a search do that its authors did not: mixed precision, checkpointing, recurrent candidates, doubles."""

import copy
import functools
from pathlib import Path
from typing import Any

import nni
import pytest
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableDropout, MutablePReLU, MutableReLU6
from nni.nas.space import RawFormatModelSpace
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Penalty
from quantnas_ext.costs.tracing import trace_layers
from quantnas_ext.errors import InputError
from quantnas_ext.nn import ChoiceBlock, MutableQuantConv2d, MutableQuantLinear, SharedInput, operation_block
from quantnas_ext.quantization import QuantConv2d
from quantnas_ext.search.discretization_gap import derive_and_score
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRBasicSpace

COST = BitOps((1, 3, 8, 8))
OPERATIONS = {"head": ["conv_3x3", "conv_5x5"], "body": ["fac_3x3"], "upsample": ["conv_3x3"], "tail": ["conv_1x1"]}
ARGUMENTS: dict[str, Any] = {"scale": 2, "width": 6, "cells": 1, "bits": [4, 8], **OPERATIONS}


def supernet(space: ModelSpace, **options: Any) -> QuantNAS:
    strategy = QuantNAS(**options)
    strategy.mutate_model(space)
    for logits in strategy.distribution.parameters():
        logits.data.normal_()
    return strategy


def derive(strategy: QuantNAS, space: ModelSpace) -> nn.Module:
    """As after an experiment, which tells the strategy of its supernet."""
    strategy._mutated_model_space = RawFormatModelSpace(space, FunctionalEvaluator(print))
    return strategy.derive()


def test_what_a_bf16_search_derives_computes_in_float32_like_a_network_built_anew(tmp_path: Path) -> None:
    torch.manual_seed(0)
    high = torch.rand(8, 3, 16, 16)
    data = TensorDataset(F.avg_pool2d(high, 2), high)
    within = []
    evaluator = AccelerateEvaluator(
        data, data, epochs=2, steps_per_epoch=2, batch_size=4, mixed_precision="bf16",
        on_epoch=lambda record: within.append(strategy.derive()),
    )  # fmt: skip
    strategy = QuantNAS(derive_from="best")
    sample = run_experiment(SRBasicSpace(**ARGUMENTS), evaluator, strategy, tmp_path)
    network, scores = derive_and_score(
        strategy, evaluator.training_batches(), evaluator.validation_batches(), {"loss": F.l1_loss}
    )
    for module in [m for root in (network, strategy.supernet, *within) for m in root.modules()]:
        assert not {"forward", "_original_forward", "_is_accelerate_prepared"} & set(vars(module)), type(module)
    anew = Architecture.of("sr_basic", ARGUMENTS, sample).build().eval()
    anew.load_state_dict(network.state_dict())
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(data.tensors[0]), anew(data.tensors[0]))
        batches = list(evaluator.validation_batches())
        loss = sum(F.l1_loss(anew(x), y).item() * len(x) for x, y in batches) / sum(len(x) for x, _ in batches)
    assert scores["derived"]["loss"] == pytest.approx(loss, rel=1e-6)


class Noisy(ModelSpace):
    """A block of two 3x3 convolutions of one precision behind a tensor that is bfloat16 already, as in a network."""

    def __init__(self, bits: str) -> None:
        super().__init__()
        self.block = operation_block("block", ["conv_3x3", "conv_1x1"], 16, 32, width=16, bits=[bits])

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


def variance(bits: str, evaluation: Any, steps: int = 60) -> tuple[float, float]:
    """Mean variance over the noise of the outputs of a block that is all 3x3, and what the formula gives.

    The outputs themselves are bfloat16, whose rounding adds its own variance, distance^2 / 12. So are the kernels,
    which adds a sixth at 8 bits.
    """
    torch.manual_seed(0)
    space = Noisy(bits)
    strategy = QuantNAS(evaluation=evaluation)
    strategy.mutate_model(space)
    choice = next(iter(strategy.distribution.tree))
    strategy.distribution.logits["block"].data = torch.tensor(
        [30.0 if v == "conv_3x3" else -30.0 for v in choice.values]
    )
    # All within one octave but a zero, so that the step of 8 bits is the distance of bfloat16's numbers; and kernels
    # that sum to zero, as the rounding of large outputs would hide it again.
    x = (1 + torch.rand(4, 16, 12, 12)).bfloat16()
    x[0, 0, 0, 0] = 0
    weight = space.block["conv_3x3"][1].weight.detach()
    weight -= weight.mean(dim=(1, 2, 3), keepdim=True)
    outputs = []
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for step in range(steps):
            strategy.context.bank.begin(0, 0, step, 0)
            strategy.distribution.draw()
            outputs.append(space(x).float()[..., 1:-1, 1:-1])
    seen = x.float().relu()
    of_weights, of_inputs = (int(part) for part in bits[1:].split("a"))
    step_w = 0 if of_weights == 32 else (weight.max() - weight.min()) / (2**of_weights - 1)
    step_x = 0 if of_inputs == 32 else seen.max() / (2**of_inputs - 1)
    of_kernel = F.conv2d(seen.square(), torch.ones_like(weight)).mean() * step_w**2 / 12
    of_input = weight.square().sum((1, 2, 3)).mean() * step_x**2 / 12
    found = torch.stack(outputs)
    rounding = torch.exp2(found.abs().clamp_min(1e-9).log2().floor() - 7).square().mean() / 12
    return found.var(dim=0).mean().item(), float(of_kernel + of_input + rounding)


@pytest.mark.parametrize("evaluation", ["exact", "fast", "separate"])
@pytest.mark.parametrize(("bits", "tolerance"), [("w32a4", 0.1), ("w32a8", 0.1), ("w4a32", 0.1), ("w8a32", 0.2)])
def test_noise_of_a_bf16_search_has_the_variance_of_the_formula(bits: str, tolerance: float, evaluation: str) -> None:
    found, formula = variance(bits, evaluation)
    assert found == pytest.approx(formula, rel=tolerance)


class Deep(ModelSpace):
    """Blocks in checkpoints, one of them called twice, and a layer of each kind."""

    def __init__(self, reentrant: bool | None = None, preserve: bool = True) -> None:
        super().__init__()
        names = ["conv_1x1", "conv_3x3", "growth1_3x3"]
        self.blocks = nn.ModuleList(
            [operation_block(f"block_{i}", names, 6, 6, width=6, bits=[2, 4]) for i in range(2)]
        )
        self.layer = MutableQuantConv2d(6, 6, 3, padding=1, padding_mode="reflect", bits=nni.choice("layer", [2, 4]))
        self.reentrant, self.preserve = reentrant, preserve

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return module(x)
        return checkpoint(module, x, use_reentrant=self.reentrant, preserve_rng_state=self.preserve)

    def forward(self, x: Tensor) -> Tensor:
        for module in (self.blocks[0], self.blocks[1], self.layer, self.blocks[0], self.layer):
            x = self.run(module, x)
        return x


def gradients(evaluation: str, reentrant: bool | None, phase: int, preserve: bool = True) -> list[Tensor]:
    torch.manual_seed(0)
    space = Deep(reentrant, preserve)
    strategy = supernet(space, evaluation=evaluation)
    torch.manual_seed(1)
    for step in range(2):  # where much is cached in the second
        strategy.context.bank.begin(0, 0, step, phase)
        with torch.set_grad_enabled(phase == 0):
            strategy.distribution.draw()
        x = torch.rand(4, 6, 8, 8, generator=torch.Generator().manual_seed(2), requires_grad=True)
        space.zero_grad()
        strategy.distribution.zero_grad()
        space(x).square().mean().backward()
    every = [x, *space.parameters(), *(strategy.distribution.parameters() if phase == 0 else ())]
    return [torch.zeros(()) if tensor.grad is None else tensor.grad for tensor in every]


@pytest.mark.parametrize("evaluation", ["exact", "fast", "separate"])
@pytest.mark.parametrize(("reentrant", "phase"), [(False, 0), (False, 1), (True, 1)])
def test_checkpointed_activations_give_the_gradients_of_activations_that_are_kept(
    evaluation: str, reentrant: bool, phase: int
) -> None:
    kept, again = gradients(evaluation, None, phase), gradients(evaluation, reentrant, phase)
    assert sum(float(g.abs().max()) > 0 for g in kept) > 8
    for one, other in zip(again, kept, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_checkpointing_that_cannot_bring_the_noise_back_is_refused() -> None:
    with pytest.raises(RuntimeError, match="preserve_rng_state=True"):
        gradients("exact", False, 1, preserve=False)


class Named(nn.Module):
    """Returns a dictionary of a tensor and a list."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"a": self.factor * x, "b": [x, (x.sum(), None)]}


class Sequences(ModelSpace):
    """A choice between recurrent layers, of the kind that a test asks for."""

    def __init__(self, block: Any, candidates: dict[str, Any]) -> None:
        super().__init__()
        built = candidates if block is ChoiceBlock else {name: build() for name, build in candidates.items()}
        self.block = block(built, label="block")

    def forward(self, x: Tensor) -> Any:
        return self.block(x)


@pytest.mark.parametrize("block", [ChoiceBlock, LayerChoice])
def test_candidates_may_return_what_an_lstm_does_or_a_dictionary(block: Any) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 5, 4)
    lstm = functools.partial(nn.LSTM, 4, 4, batch_first=True)
    space = Sequences(block, {"a": lstm, "b": functools.partial(lstm, num_layers=1)})
    strategy = supernet(space)
    p = strategy.distribution.draw()["block"]
    y, (h, c) = space(x)
    (y_a, (h_a, c_a)), (y_b, (h_b, c_b)) = space.block["a"](x), space.block["b"](x)
    for found, first, second in ((y, y_a, y_b), (h, h_a, h_b), (c, c_a, c_b)):
        torch.testing.assert_close(found, p[0] * first + p[1] * second)
    y.square().mean().backward()
    assert strategy.distribution.logits["block"].grad.abs().max() > 0

    space = Sequences(block, {"a": functools.partial(Named, 1.0), "b": functools.partial(Named, 3.0)})
    p = supernet(space).distribution.draw()["block"]
    found = space(x)
    assert list(found) == ["a", "b"] and isinstance(found["b"], list) and found["b"][1][1] is None
    torch.testing.assert_close(found["a"], (p[0] + 3 * p[1]) * x)
    torch.testing.assert_close(found["b"][1][0], x.sum())


@pytest.mark.parametrize("block", [ChoiceBlock, LayerChoice])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: nn.LSTM(4, 4),
            r"candidate 'b' of block 'block' returns a tuple of 2 where other .* a tensor of shape",
        ),
        (lambda: Named(1.0), "candidate 'b' of block 'block' returns a dict of a, b"),
        (lambda: nn.Linear(4, 1), r"'b' of block 'block' returns a tensor of shape \[2, 5, 1\] .* \[2, 5, 4\]"),
        (lambda: nn.Sequential(nn.Identity(), Text()), "candidate 'b' of block 'block' returns a str"),
    ],
)
def test_candidates_that_return_different_things_are_refused_by_name(block: Any, other: Any, message: str) -> None:
    space = Sequences(block, {"a": nn.Identity, "b": other})
    supernet(space)
    with pytest.raises(InputError, match=message):
        space(torch.rand(2, 5, 4))


class Text(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "text"


class Regularised(ModelSpace):
    """Searches arguments that change no cost beside precisions that do."""

    def __init__(self, width: bool = False) -> None:
        super().__init__()
        self.layer = MutableQuantConv2d(3, 4, 3, padding=1, bits=nni.choice("bits", [4, 8]))
        self.norm = MutableBatchNorm2d(4, eps=nni.choice("eps", [1e-5, 0.5]))
        self.activation = MutablePReLU(4)
        self.dropout = MutableDropout(nni.choice("p", [0.0, 0.75]))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.cap = MutableReLU6(inplace=nni.choice("inplace", [False, True]))
        if width:
            self.norm = MutableBatchNorm2d(nni.choice("width", [2, 4]))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.dropout(self.cap(self.activation(self.norm(self.layer(x))))))


def test_a_mutable_dropout_is_searched_with_a_cost_and_keeps_what_is_learned() -> None:
    torch.manual_seed(0)
    space = Regularised()
    bare = sum(layer.other_parameters for layer in trace_layers(space, (1, 3, 8, 8)))
    strategy = supernet(space, costs=[Penalty(COST, 1.0)])
    assert strategy.objective.costs[0](strategy.distribution.draw()).item() > 0
    assert sum(layer.other_parameters for layer in trace_layers(space, (1, 3, 8, 8))) == bare
    space(torch.rand(4, 3, 8, 8)).square().mean().backward()
    for label in ("p", "eps"):
        assert strategy.distribution.logits[label].grad.abs().max() > 0, label
    space.activation.variants[0].weight.data.fill_(0.125)
    wanted = {"p": 0.75, "eps": 0.5, "bits": 4, "inplace": True}
    for label, value in wanted.items():
        index = next(choice for choice in strategy.distribution.tree if choice.label == label).values.index(value)
        strategy.distribution.logits[label].data = F.one_hot(torch.tensor(index), 2) * 20.0
    network = derive(strategy, space)
    assert type(network.dropout) is nn.Dropout and network.dropout.p == 0.75
    assert type(network.norm) is nn.BatchNorm2d and network.norm.eps == 0.5 and network.cap.inplace
    assert (
        torch.equal(network.norm.running_mean, space.norm.variants[1].running_mean) and network.norm.running_mean.any()
    )
    assert type(network.activation) is nn.PReLU and (network.activation.weight == 0.125).all()
    with pytest.raises(InputError, match="'norm' .*searches its num_features"):
        QuantNAS(costs=[Penalty(COST, 1.0)]).mutate_model(Regularised(width=True))


class Padded(ModelSpace):
    """Convolutions that could be merged but for their padding."""

    def __init__(self, mode: str) -> None:
        super().__init__()

        def build(size: int) -> nn.Module:
            bits = nni.choice(f"bits_{size}", [4, 8])
            convolution = MutableQuantConv2d(
                3, 4, size, padding=size // 2, padding_mode=mode, bias=False, bits=bits, signed=False
            )
            return nn.Sequential(nn.ReLU(), convolution)

        self.block = ChoiceBlock({f"conv_{k}": functools.partial(build, k) for k in (1, 3, 5)}, label="block")

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("quantization", ["none", "noise", "direct"])
def test_convolutions_that_pad_by_their_input_are_searched_and_derived(quantization: Any, mode: str) -> None:
    torch.manual_seed(0)
    space = Padded(mode)
    strategy = supernet(space, costs=[Penalty(COST, 1.0)], quantization=quantization)
    assert [layer.macs for layer in trace_layers(Padded(mode), (1, 3, 8, 8))] == [12 * k * k * 64 for k in (1, 3, 5)]
    x = torch.rand(2, 3, 8, 8)
    p = strategy.distribution.draw()["block"]
    space(x).square().mean().backward()
    space.eval()
    layers = {name: space.block[name][1] for name in space.block.names}
    if quantization != "direct":
        plain = [
            F.conv2d(F.pad(x, [la.padding[0]] * 4, mode=mode), la.weight) if la.padding[0] else F.conv2d(x, la.weight)
            for la in layers.values()
        ]
        torch.testing.assert_close(space(x), sum(share * y for share, y in zip(p, plain, strict=True)))
    network = derive(strategy, space)
    chosen = next(module for module in network.modules() if isinstance(module, QuantConv2d))
    assert chosen.padding_mode == mode
    network.eval()
    x, weight, _ = chosen.operands(x)
    found = chosen._conv_forward(x, weight, None)
    pad = [chosen.padding[0]] * 4
    torch.testing.assert_close(found, F.conv2d(F.pad(x, pad, mode=mode) if pad[0] else x, weight))


def test_an_unknown_padding_mode_is_refused() -> None:
    for layer in (QuantConv2d, MutableQuantConv2d):
        with pytest.raises(InputError, match="padding mode 'mirror'; Known: zeros, reflect, replicate, circular"):
            layer(3, 4, 3, padding=1, padding_mode="mirror")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("quantization", ["noise", "direct_separate"])
def test_a_network_derived_from_a_space_of_doubles_is_one_of_doubles(dtype: torch.dtype, quantization: Any) -> None:
    torch.manual_seed(0)
    space = SRBasicSpace(**ARGUMENTS)
    space.fixed = MutableQuantConv2d(3, 3, 1, bits=8)
    space.foreign = MutableBatchNorm2d(3)
    strategy = supernet(space, quantization=quantization)
    space.to(dtype)
    network = derive(strategy, space)
    assert {tensor.dtype for tensor in network.parameters()} == {dtype}
    sample = strategy.most_likely()
    chosen = space.head[0][sample["head_0"]][1]
    index = chosen.bits_choice.values.index(sample[chosen.bits_choice.label])
    assert torch.equal(network.head[0][1].weight, chosen.weight_of(index))
    assert torch.equal(network.fixed.weight, space.fixed.weight)
    assert network(torch.rand(1, 3, 8, 8, dtype=dtype)).dtype == dtype


def test_a_hook_that_fails_leaves_the_space_and_the_strategy_as_they_were() -> None:
    torch.manual_seed(0)
    space = SRBasicSpace(**ARGUMENTS)
    before = {name: module for name, module in space.named_modules()}
    state = copy.deepcopy(space.state_dict())

    def failing(module: nn.Module, name: str, memo: dict[str, Any], arguments: dict[str, Any]) -> None:
        if name.startswith("tail"):
            raise KeyError(name)

    strategy = QuantNAS(mutation_hooks=[failing])
    with pytest.raises(KeyError, match="tail"):
        strategy.mutate_model(space)
    assert dict(space.named_modules()) == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in space.state_dict().items())
    with pytest.raises(RuntimeError, match="no model space yet"):
        _ = strategy.distribution
    QuantNAS().mutate_model(space)
    space(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    "options",
    [{"evaluation": "exact"}, {"evaluation": "fast"}, {"evaluation": "separate"}, {"quantization": "direct"}],
    ids=str,
)
def test_a_look_in_inference_mode_leaves_a_search_that_can_go_on(options: dict[str, Any]) -> None:
    def step(look: bool) -> list[Tensor]:
        torch.manual_seed(0)
        space = SRBasicSpace(**{**ARGUMENTS, "adq": False})
        strategy = supernet(space, **options)
        if look:
            state = copy.deepcopy(space.state_dict())
            with torch.inference_mode():
                strategy.context.bank.begin(0, 0, 0, 0)
                strategy.distribution.draw()
                space(torch.rand(4, 3, 8, 8))
            space.load_state_dict(state)
            space(torch.rand(4, 3, 8, 8)).mean().backward()  # with the same draw
            space.load_state_dict(state)
            space.zero_grad()
        torch.manual_seed(1)
        strategy.context.bank.begin(0, 0, 0, 0)
        strategy.distribution.draw()
        strategy.distribution.zero_grad()
        space(torch.rand(4, 3, 8, 8)).square().mean().backward()
        return [p.grad for p in (*space.parameters(), *strategy.distribution.parameters()) if p.grad is not None]

    after, without = step(True), step(False)
    assert len(after) == len(without) > 10
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-8) for one, other in zip(after, without, strict=True))


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({}, "block 'block' has no candidates"),
        (None, "block 'block' has no candidates"),
        ({"a": lambda: None}, r"function of candidate 'a' of block 'block' returns nothing \(None\)"),
        ({"a": lambda: nn.ReLU}, "candidate 'a' of block 'block' returns a type"),
        ({"a": 3}, "candidate 'a' of block 'block' is a int; give a function"),
        ({"a.b": nn.Identity}, "names a candidate 'a.b'; use a text without dots"),
    ],
)
def test_a_block_that_chooses_among_nothing_is_refused(candidates: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ChoiceBlock(candidates, label="block")
    with nni.nas.space.model_context({"block": "a"}), pytest.raises(InputError, match=message):
        ChoiceBlock(candidates, label="block")


def test_a_shared_input_of_no_modules_is_refused() -> None:
    with pytest.raises(InputError, match="no blocks"):
        SharedInput([])
    with pytest.raises(InputError, match="block 2 of a shared input is a NoneType"):
        SharedInput([nn.Identity(), None])  # type: ignore[list-item]


def test_a_layer_of_linear_candidates_takes_sequences() -> None:
    torch.manual_seed(0)

    class Mixer(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            build = functools.partial(MutableQuantLinear, 4, 4)
            self.block = ChoiceBlock(
                {"a": lambda: build(bits=nni.choice("a_bits", [4, 8])), "b": nn.Identity}, label="block"
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x)

    space = Mixer()
    supernet(space)
    assert space(torch.rand(2, 5, 4)).shape == (2, 5, 4)
