"""Expected costs: exact values, exact gradients, and agreement with an independent counter."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.cost import BitOps, ExpectedCost, ParameterBytes, sample_cost
from quantnas_ext.costs.goals import Penalty
from quantnas_ext.costs.profiler import BitOpsProfiler
from quantnas_ext.costs.tracing import trace_layers
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import QuantConv2d, QuantLinear
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRBasicSpace

SHAPE = (1, 3, 9, 11)


def space(**arguments: Any) -> SRBasicSpace:
    return SRBasicSpace(**{"scale": 2, "width": 6, "cells": 2, "bits": [4, 8, 32], **arguments})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share_cells", [True, False])
def test_one_hot_expectation_and_profiler_equal_the_frozen_networks_bitops(
    seed: int, share_cells: bool, independent_bitops: Callable[..., float]
) -> None:
    model = space(share_cells=share_cells)
    distribution = ArchitectureDistribution(ChoiceTree.of(model))
    torch.manual_seed(seed)
    for logits in distribution.parameters():  # one-hot at random
        logits.data = torch.where(torch.arange(len(logits)) == torch.randint(len(logits), ()), 1e4, -1e4)
    sample = distribution.most_likely()
    counted = independent_bitops(model.freeze(sample), SHAPE)
    assert counted > 0
    cost = ExpectedCost(BitOps(SHAPE), model, distribution)
    assert float(cost(distribution.draw())) == pytest.approx(counted, rel=1e-9)
    assert cost.of(sample) == counted
    assert BitOpsProfiler(model, SHAPE).profile(sample) == counted
    assert BitOps(SHAPE).of_network(model.freeze(sample)) == counted


def closed_form(model: SRBasicSpace, logits: dict[str, torch.Tensor]) -> torch.Tensor:
    """Written from the definition of the space, without our tracing: sum over blocks, operations and bits."""
    (_, _, height, width), c, s = SHAPE, 6, 2
    pixels, upscaled = height * width, height * width * s * s
    total = torch.zeros((), dtype=torch.float64)

    def macs(operation: str, c_in: int, c_out: int, positions: int) -> int:
        kind, size, *rest = operation.split("_")
        k = int(size[0])
        groups = int(rest[0][1:]) if rest else 1
        if kind == "fac":
            return positions * (c_in * 6 * k + 6 * c_out * k)
        return positions * c_in * c_out * k * k // groups

    blocks = {
        "head_0": (3, c, pixels, 1),
        "upsample_0": (c, 12, pixels, 1),
        **dict.fromkeys(("head_1",), (c, c, pixels, 1)),
        **dict.fromkeys(("body_0", "body_1", "body_skip"), (c, c, pixels, 2)),
        **dict.fromkeys(("tail_0", "tail_1"), (3, 3, upscaled, 1)),
    }
    for block, (c_in, c_out, positions, repeats) in blocks.items():
        operations = [choice for choice in ChoiceTree.of(model) if choice.label == block][0].values
        p = logits[block].softmax(0)
        for index, operation in enumerate(operations):
            bits = logits[f"{block}__{operation}__bits"].softmax(0) @ torch.tensor([16.0, 64.0, 1024.0]).double()
            total = total + p[index] * repeats * macs(operation, c_in, c_out, positions) * bits
    return total


def test_gradient_of_the_expected_bitops_equals_a_closed_form_for_every_logit_and_is_not_zero() -> None:
    model = space()
    torch.manual_seed(0)
    distribution = ArchitectureDistribution(ChoiceTree.of(model)).double()
    for logits in distribution.parameters():
        logits.data.normal_()
    cost = ExpectedCost(BitOps(SHAPE), model, distribution)
    own = {label: logits.detach().clone().requires_grad_() for label, logits in distribution.logits.items()}
    expected = closed_form(model, own)
    found = cost(distribution.draw())
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    gradients = torch.autograd.grad(found, list(distribution.logits.values()))
    references = torch.autograd.grad(expected, list(own.values()))
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(
            gradient, reference.to(gradient.dtype), rtol=1e-5, atol=1e-5 * float(reference.abs().max())
        )
        assert (gradient != 0).all()


def test_the_search_objective_reaches_every_logit_through_the_cost_alone() -> None:
    """NNI's own penalty is computed from plain numbers and has no gradient; ours must have one."""
    strategy = QuantNAS(costs=[Penalty(BitOps(SHAPE), 1.0)])
    strategy.mutate_model(space())
    loss, parts = strategy.objective(torch.zeros(()), strategy.distribution.draw(), t=0.0, epochs=2)
    assert float(loss) == pytest.approx(float(parts["bitops"]) / strategy.objective.references[0], rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().min() > 0 for p in strategy.distribution.parameters())


def test_nnis_own_expectation_of_our_expression_agrees() -> None:
    model = space(head=["conv_3x3"], skip=["conv_1x1"], tail=["conv_1x1"], upsample=["conv_3x3"], bits=[4, 8])
    distribution = ArchitectureDistribution(ChoiceTree.of(model))
    probabilities = distribution.probabilities()
    values = {choice.label: choice.values for choice in distribution.tree}
    penalty = ExpectationProfilerPenalty(BitOpsProfiler(model, SHAPE), baseline=1.0)
    expectation = penalty.profile({k: dict(zip(values[k], p, strict=True)) for k, p in probabilities.items()})
    assert expectation == pytest.approx(float(ExpectedCost(BitOps(SHAPE), model, distribution)(distribution.draw())))


def test_costs_of_a_supernet_equal_those_of_the_space_and_tracing_leaves_it_untouched() -> None:
    plain, supernet = space(), space()
    QuantNAS().mutate_model(supernet)
    state = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    assert BitOps(SHAPE).terms(plain) == BitOps(SHAPE).terms(supernet)
    assert ParameterBytes(SHAPE).terms(plain) == ParameterBytes(SHAPE).terms(supernet)
    assert supernet.training and not any(module._forward_hooks for module in supernet.modules())
    assert all(torch.equal(state[name], tensor) for name, tensor in supernet.state_dict().items())


@pytest.mark.parametrize("activation_quantizer", ["lsq", "hwgq"])
def test_parameter_bytes_equal_those_of_the_stored_parameters(activation_quantizer: str) -> None:
    model = space(adq=True, activation_quantizer=activation_quantizer)
    sample: dict[str, Any] = {}
    model.random(sample)
    network = model.freeze(sample)
    total = 0.0
    for module in network.modules():
        if isinstance(module, QuantConv2d):
            total += module.weight.numel() * module.precision.weight_bits / 8
            total += 4 * sum(p.numel() for name, p in module.named_parameters() if name != "weight")
        else:
            inside = isinstance(module, nn.Module) and type(module).__name__.startswith("LSQ")
            total += 0 if inside else 4 * sum(p.numel() for p in module.parameters(recurse=False))
            total += 4 * 2 * module.num_features if isinstance(module, nn.BatchNorm2d) else 0  # running mean, variance
    assert ParameterBytes(SHAPE).of_network(network) == total
    terms = ParameterBytes(SHAPE).terms(model)
    assert sample_cost(terms, ChoiceTree.of(model).complete(sample)) == total
    QuantNAS().mutate_model(model)
    assert ParameterBytes(SHAPE).terms(model) == terms


def test_a_layer_called_twice_costs_twice_and_is_stored_once() -> None:
    layer = QuantConv2d(3, 3, 1, bits=4, bias=False)
    layers = trace_layers(nn.Sequential(layer, nn.ReLU(), layer), (1, 3, 4, 4))
    convolutions = [traced for traced in layers if traced.macs]
    assert [(traced.macs, traced.weights) for traced in convolutions] == [(2 * 9 * 16, 9)]


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Flatten(0, 1), QuantLinear(6, 7), nn.ReLU()), (3, 5, 6)),
        (nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Flatten(0, 2), nn.Linear(6, 2)), (2, 4, 6)),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2, groups=1), nn.ConvTranspose2d(4, 6, 2, groups=2)), SHAPE),
        (nn.Sequential(nn.ConvTranspose1d(3, 4, 5), nn.Conv1d(4, 4, 3, groups=2)), (2, 3, 9)),
        (nn.Conv2d(4, 6, 3, padding="same", padding_mode="circular"), (4, 4, 7, 7)),
    ],
)
def test_macs_for_one_sample_equal_torchs_own_count_wherever_the_batch_is(
    network: nn.Module, shape: tuple[int, ...]
) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(shape))
    macs = sum(layer.macs for layer in trace_layers(network, shape))
    assert macs == counter.get_total_flops() / 2 / shape[0] > 0


def test_an_unbatched_layer_and_one_on_a_single_vector_count_all_their_elements() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.with_bias, self.plain = nn.Conv2d(3, 4, 1), nn.Linear(5, 2), nn.Linear(5, 2, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = self.conv(x[0])
            return self.with_bias(inner[0, 0]) + self.plain(inner[0, 1])

    macs = {layer.path: layer.macs for layer in trace_layers(Single(), (1, 3, 4, 5))}
    assert macs == {"conv": 12 * 20, "with_bias": 10, "plain": 10}


class Functional(nn.Module):
    def __init__(self, inner: nn.Conv2d) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.inner.weight)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


class Scores(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize(
    ("inner", "shape", "named"),
    [
        (Functional(QuantConv2d(3, 3, 1, bits=4)), (1, 3, 4, 12), "'1' \\(Functional\\)"),
        (nn.LSTM(12, 3), (1, 4, 12), "'1' \\(LSTM\\)"),
    ],
)
def test_what_multiplies_where_it_cannot_be_counted_is_refused_by_name(
    inner: nn.Module, shape: tuple[int, ...], named: str
) -> None:
    with pytest.raises(InputError, match=f"multiplications of module {named}"):
        trace_layers(nn.Sequential(nn.ReLU(), inner), shape)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("inner", "shape", "macs"),
    [
        (Functional(nn.Conv2d(3, 3, 1)), (2, 3, 4, 12), 9 * 48),
        (Attention(), (2, 2, 2, 12), 4 * 12 * 48 + 2 * 4 * 4 * 12),  # projections in and out, scores and their use
        (Scores(), (2, 2, 4, 12), 2 * 2 * 4 * 4 * 12),
        (nn.TransformerEncoderLayer(12, 2, 16, batch_first=True), (2, 4, 12), 4 * (48 * 12 + 2 * 12 * 16) + 384),
        (nn.LSTMCell(12, 3), (4, 12), 12 * 12 + 12 * 3),
    ],
)
def test_products_of_a_module_itself_count_in_full_precision(
    inner: nn.Module, shape: tuple[int, ...], macs: int
) -> None:
    assert BitOps(shape).of_network(nn.Sequential(nn.ReLU(), inner)) == macs * 1024
    assert torch.backends.mha.get_fastpath_enabled()
    space = Reused(inner, nn.Sequential(QuantConv2d(shape[1], shape[1], 1, bits=8)) if len(shape) == 4 else nn.ReLU())
    terms = BitOps(shape).terms(space)
    assert terms[frozenset([("block", "a")])] == macs * 1024


class Reused(ModelSpace):
    """Two candidates that are the same layer, or hold the same normalisation."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.block = LayerChoice({"a": first, "b": second}, label="block")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


def test_a_layer_under_different_choices_is_refused_and_one_with_two_parents_is_stored_once() -> None:
    conv, norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    for space in (Reused(conv, conv), Reused(norm, nn.Sequential(norm)), nn.Sequential(conv, Reused(conv, nn.ReLU()))):
        with pytest.raises(InputError, match="stands under different choices .*block = a"):
            trace_layers(space, SHAPE)
    twice = nn.Sequential(nn.Sequential(conv, norm), nn.Sequential(norm, conv))
    assert BitOps(SHAPE).of_network(twice) == 2 * 9 * 99 * 1024
    assert ParameterBytes(SHAPE).of_network(twice) == 4 * (9 + 3 + 4 * 3)


def test_a_layer_called_under_a_choice_above_which_it_stands_is_refused() -> None:
    class Borrowing(nn.Module):
        def __init__(self, conv: nn.Module) -> None:
            super().__init__()
            self.borrowed = (conv,)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.borrowed[0](x)

    conv = nn.Conv2d(3, 3, 1)
    with pytest.raises(InputError, match="always there and block = b"):
        trace_layers(nn.Sequential(conv, Reused(nn.ReLU(), Borrowing(conv))), SHAPE)


def test_shapes_that_are_none_and_networks_that_cannot_run_are_refused_with_one_line() -> None:
    class Failing(nn.Module):
        def __init__(self, error: Exception) -> None:
            super().__init__()
            self.error = error

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise self.error

    for shape in ((), (3,), (1, 0, 4), (-1, 3, 8, 8)):
        with pytest.raises(InputError, match="is not the shape of an input"):
            trace_layers(nn.Conv2d(3, 3, 1), shape)
    for kind in (RuntimeError, ValueError, TypeError):
        with pytest.raises(InputError) as raised:
            trace_layers(Failing(kind("cannot\nand a long listing")), SHAPE)
        assert str(raised.value) == f"the model cannot run an input of shape {SHAPE}: cannot"


def test_costs_of_incomplete_samples_are_refused_and_precisions_are_read_in_any_form() -> None:
    model = space(bits=["w4a8", 8])
    distribution = ArchitectureDistribution(ChoiceTree.of(model))
    sample = distribution.most_likely()
    expected = ExpectedCost(BitOps(SHAPE), model, distribution)
    label = f"head_0__{sample['head_0']}__bits"
    for cost in (BitOpsProfiler(model, SHAPE).profile, expected.of):
        counted = cost({**sample, label: "w4a8"})
        assert (
            cost({**sample, label: (4, 8)}) == cost({**sample, label: [4, 8]}) == counted < cost({**sample, label: 8})
        )
        with pytest.raises(InputError, match="no value for choice 'body_0'"):
            cost({key: value for key, value in sample.items() if key != "body_0"})
        with pytest.raises(InputError, match=f"unknown value of choice '{label}' '5'"):
            cost({**sample, label: 5})


def test_a_choice_within_a_candidate_of_its_own_label_never_takes_two_values() -> None:
    class Nested(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            inner = LayerChoice({"a": nn.Conv2d(3, 3, 1), "b": nn.Conv2d(3, 3, 3, padding=1)}, label="block")
            self.block = LayerChoice({"a": inner, "b": nn.ReLU()}, label="block")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(x)

    terms = BitOps(SHAPE).terms(Nested())
    assert terms == {frozenset({("block", "a")}): 9 * 99 * 1024}


def test_tracing_draws_no_random_numbers() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    supernet = space()
    strategy = QuantNAS()
    strategy.mutate_model(supernet)
    torch.manual_seed(0)
    expected = torch.random.get_rng_state()
    trace_layers(supernet, SHAPE)
    trace_layers(Noisy(), SHAPE)
    copy.deepcopy(strategy.distribution)
    assert torch.equal(torch.random.get_rng_state(), expected)


class ByValue(nn.Module):
    """Its branch, its mask and its state need numbers, which the meta device does not have."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner, self.kind, self.constant = nn.Conv2d(3, 3, 1), kind, torch.ones(1, 3, 9, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        if self.kind == "branch" and x.sum() > 1e9:
            return x
        if self.kind == "mask":
            x[x > x.max()] = 0
        return x + self.constant + x.detach().numpy().max() if self.kind == "numpy" else x + self.constant


@pytest.mark.parametrize("kind", ["branch", "mask", "numpy", "constant"])
def test_a_model_that_needs_values_is_traced_with_them_to_the_same_result(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Conv2d(3, 5, 3))
    asking = nn.Sequential(ByValue(kind), nn.Conv2d(3, 5, 3))
    with caplog.at_level("INFO"):
        found = [(layer.macs, layer.weights) for layer in trace_layers(asking, SHAPE)]
    assert found == [(layer.macs, layer.weights) for layer in trace_layers(plain, SHAPE)]
    assert kind == "constant" or caplog.messages[0].startswith("Sequential computes from values")


def test_a_model_without_values_is_traced_too() -> None:
    model = space()
    QuantNAS().mutate_model(model)
    assert trace_layers(copy.deepcopy(model).to("meta"), SHAPE) == trace_layers(model, SHAPE)


def test_costs_in_the_architecture_file_scale_with_the_area() -> None:
    architecture = Architecture.of("sr_basic", {"scale": 2, "width": 6, "adq": False}, _sample())
    assert architecture.cost["bitops_256"] == 64 * architecture.cost["bitops_32"]


def _sample() -> dict[str, Any]:
    sample: dict[str, Any] = {}
    SRBasicSpace(scale=2, width=6, adq=False).random(sample)
    return sample
