"""Merged evaluation of blocks against separate candidates: equal without noise, equal in distribution with it."""

import copy
import functools
import io
import logging
from collections import Counter
from typing import Any

import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from quantnas_ext.nn import (
    OPERATIONS,
    MutableQuantConv2d,
    SharedInput,
    operation_block,
    register_operation,
    relu_conv,
)
from quantnas_ext.quantization import activation_quantizers
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space
from quantnas_ext.supernet.block_evaluation import MOST_COMPUTATIONS
from quantnas_ext.supernet.quantization_mode import SearchQuantization

SINGLES = ("conv_1x1", "conv_3x3", "conv_5x5", "conv_3x3_g3", "conv_5x5_g2", "conv_3x3_dw", "conv_3x3_d2")
CHAINS = ("growth1_3x3", "dws_3x3", "increase_3x3", "decrease_3x3", "fac_3x3", "skip_connect")


class TwoBlocks(ModelSpace):
    """Two blocks on one input, of different widths."""

    def __init__(self, operations: tuple[str, ...], bits: list[Any], widths: tuple[int, int] = (6, 12)) -> None:
        super().__init__()
        self.both = SharedInput(
            [
                operation_block(
                    f"block_{index}",
                    [name for name in operations if name != "skip_connect" or width == 6],
                    6,
                    width,
                    width=6,
                    bits=bits,
                )
                for index, width in enumerate(widths)
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.both(x), dim=1)


def supernet(space: ModelSpace, **options: Any) -> QuantNAS:
    strategy = QuantNAS(**options)
    strategy.mutate_model(space)
    for logits in strategy.distribution.parameters():
        logits.data.normal_()
    return strategy


def outcome(space: nn.Module, strategy: QuantNAS, x: Tensor, evaluation: str) -> list[Tensor]:
    """Output and the gradients of input, weights and logits of one forward pass."""
    strategy.context.quantization = SearchQuantization(strategy.quantization.mode, evaluation=evaluation)  # type: ignore[arg-type]
    x = x.clone().requires_grad_()
    strategy.distribution.draw()
    y = space(x)
    target = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    wanted = [x, *space.parameters(), *strategy.distribution.parameters()]
    gradients = torch.autograd.grad((y - target).square().mean(), wanted, allow_unused=True)
    return [y, *(g if g is not None else torch.zeros(()) for g in gradients)]


@pytest.mark.parametrize("mode", ["none", "direct", "direct_separate"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_without_noise_merged_and_separate_candidates_agree_in_output_and_all_gradients(mode: str, layout: Any) -> None:
    torch.manual_seed(0)
    space = TwoBlocks(SINGLES + CHAINS, [4, 8, "w4a8", 32])
    strategy = supernet(space, quantization=mode)
    space.double().to(memory_format=layout)
    strategy.distribution.double()
    x = torch.randn(2, 6, 9, 10, dtype=torch.float64).to(memory_format=layout)
    outcome(space, strategy, x, "separate")  # starts the steps of activations
    separate = outcome(space, strategy, x, "separate")
    assert sum(g.abs().max() > 0 for g in separate) > 20
    for evaluation in ("exact", "fast"):
        merged = outcome(space, strategy, x, evaluation)
        for one, other in zip(merged, separate, strict=True):
            assert (one - other).abs().max() <= 1e-9 * other.abs().max() + 1e-14


def test_an_operation_of_one_s_own_is_merged_or_the_debug_log_says_why_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def convolution(before: int, after: int, bits: Any, **others: Any) -> nn.Module:
        bias, padding = others.pop("bias", False), others.pop("padding", 1)
        return MutableQuantConv2d(before, after, 3, padding=padding, bias=bias, bits=bits, signed=False, **others)

    class Wrapped(nn.Module):
        def __init__(self, before: int, after: int, bits: Any) -> None:
            super().__init__()
            self.inside = convolution(before, after, bits)

        def forward(self, x: Tensor) -> Tensor:
            return self.inside(x.relu())

    def nested(before: int, after: int, bits: Any) -> nn.Module:
        relu, conv = relu_conv(before, after, (3, 3), bits=bits)
        return nn.Sequential(nn.Identity(), nn.Sequential(relu, nn.Sequential(conv)), nn.Identity())

    builders = {
        "nested": nested,
        "wrapped": Wrapped,
        "turned": lambda b, a, bits: nn.Sequential(convolution(b, a, bits), nn.ReLU()),
        "longer": lambda b, a, bits: nn.Sequential(nn.ReLU(), convolution(b, a, bits), nn.PReLU()),
        "biased": lambda b, a, bits: nn.Sequential(nn.ReLU(), convolution(b, a, bits, bias=True)),
        "mirror": lambda b, a, bits: nn.Sequential(nn.ReLU(), convolution(b, a, bits, padding_mode="reflect")),
    }
    operations = dict(OPERATIONS)
    try:
        for name, build in builders.items():
            register_operation(name)(lambda b, a, *, width, bits, build=build: build(b, a, bits))
        with caplog.at_level(logging.DEBUG, logger="quantnas_ext"):
            torch.manual_seed(0)
            space = TwoBlocks(("conv_3x3", *builders), [4, 8, 32])
            strategy = supernet(space, quantization="direct")
    finally:
        OPERATIONS.clear()
        OPERATIONS.update(operations)
    said = {record.args[0]: record.args[2] for record in caplog.records if record.name.endswith("merged_blocks")}
    unlike = "not with a ReLU and a convolution of searched precision in an nn.Sequential"
    assert said == {
        "wrapped": f"it begins with Wrapped, {unlike}",
        "turned": f"it begins with MixedQuantConv2d and ReLU, {unlike}",
        "longer": "PReLU follows its first convolution",
        "biased": "its convolution has a bias",
        "mirror": "it pads with reflect and not with zeros",
    }
    space.double()
    strategy.distribution.double()
    x = torch.randn(2, 6, 9, 10, dtype=torch.float64)
    outcome(space, strategy, x, "separate")
    convolutions: list[Any] = []
    original = torch.nn.functional.conv2d
    separate = outcome(space, strategy, x, "separate")
    monkeypatch.setattr(
        "quantnas_ext.supernet.block_evaluation.F.conv2d", lambda *a, **k: convolutions.append(a) or original(*a, **k)
    )
    merged = outcome(space, strategy, x, "exact")
    for one, other in zip(merged, separate, strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max() + 1e-14
    # conv_3x3 and nested, of both blocks, in one convolution for every precision of the activations.
    together = [call[1] for call in convolutions if call[1].shape[0] == 18]
    assert len(together) == 3


@pytest.mark.parametrize("name", ["sr_basic", "sr_rfdn"])
def test_whole_spaces_agree_too(name: str) -> None:
    torch.manual_seed(0)
    space = build_space(name, {"scale": 2, "width": 12, "cells": 1, "adq": False})
    strategy = supernet(space, quantization="none")
    space.double()
    strategy.distribution.double()
    x = torch.rand(1, 3, 16, 17, dtype=torch.float64)
    outcome(space, strategy, x, "separate")
    separate, merged = outcome(space, strategy, x, "separate"), outcome(space, strategy, x, "exact")
    for one, other in zip(merged, separate, strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max() + 1e-14


DRAWS = 600


@functools.cache
def statistics(evaluation: str, masked: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of the output over draws of the noise, and the mean gradient of the logits."""
    torch.manual_seed(0)
    space = TwoBlocks(("conv_1x1", "conv_3x3", "conv_5x5_g2", "growth1_3x3"), [2, 4])
    strategy = supernet(space, evaluation=evaluation, masked_noise=masked)
    x = torch.randn(4, 6, 6, 6)  # of which all four have the same noise from the merged kernel
    target = torch.randn(4, 18, 6, 6)
    logits = list(strategy.distribution.parameters())
    total, squares = torch.zeros_like(target), torch.zeros_like(target)
    gradient = torch.zeros(sum(p.numel() for p in logits))
    for step in range(DRAWS):
        strategy.context.bank.begin(0, 0, step, 0)
        strategy.distribution.draw()
        y = space(x)
        loss = (y - target).square().mean()
        gradient += torch.cat([g.flatten() for g in torch.autograd.grad(loss, logits)]) / DRAWS
        total += y.detach() / DRAWS
        squares += y.detach().square() / DRAWS
    return total, squares - total.square(), gradient


@pytest.mark.parametrize("masked", [False, True])
def test_with_noise_exact_evaluation_has_the_mean_and_variance_of_separate_candidates(masked: bool) -> None:
    mean, variance, gradient = statistics("separate", masked)
    exact_mean, exact_variance, exact_gradient = statistics("exact", masked)
    # Means over 2,592 outputs; each is uncertain by its own deviation over sqrt(DRAWS).
    assert (exact_mean - mean).square().mean() < 3 * 2 * variance.mean() / DRAWS
    assert (exact_variance.mean() / variance.mean()).item() == pytest.approx(1, abs=0.03)
    assert torch.cosine_similarity(exact_gradient, gradient, dim=0) > 0.99


def test_fast_evaluation_is_within_its_stated_bias() -> None:
    mean, variance, gradient = statistics("separate", False)
    fast_mean, fast_variance, fast_gradient = statistics("fast", False)
    assert (fast_mean - mean).square().mean() < 3 * 2 * variance.mean() / DRAWS
    assert (fast_variance.mean() / variance.mean()).item() == pytest.approx(1, abs=0.2)
    assert torch.cosine_similarity(fast_gradient, gradient, dim=0) > 0.95


class Calls(TorchDispatchMode):
    """Counts the operations that run, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[function.name()] += 1
        return function(*args, **(kwargs or {}))

    @property
    def convolutions(self) -> int:
        return self.counts["aten::convolution"]


@pytest.mark.parametrize(
    "options",
    [{"evaluation": "exact"}, {"evaluation": "fast"}, {"quantization": "direct"}, {"masked_noise": True}],
    ids=str,
)
def test_a_step_never_waits_for_a_value(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    space = TwoBlocks(SINGLES + CHAINS, [4, 8, 32])
    strategy = supernet(space, **options)
    space(torch.randn(2, 6, 8, 8))  # starts the steps of activations
    for quantizer in activation_quantizers(space):
        quantizer.end_observation()  # for which values are looked at
    with Calls() as calls:
        strategy.distribution.draw()
        space(torch.randn(2, 6, 8, 8)).square().mean().backward()
    assert calls.convolutions > 4
    assert not {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"} & set(calls.counts)


@pytest.mark.parametrize("evaluation", ["separate", "exact"])
@pytest.mark.parametrize(("relaxation", "paths"), [("one_path", 1), ("two_paths", 2), ("gumbel_hard_sampled", 1)])
def test_path_sampling_evaluates_only_what_it_samples(relaxation: str, paths: int, evaluation: str) -> None:
    torch.manual_seed(0)
    space = TwoBlocks(("conv_1x1_dw", "conv_3x3_dw", "conv_5x5_dw", "conv_3x3_d2"), [4, 8], widths=(6, 6))
    strategy = supernet(space, relaxation=relaxation, quantization="none", evaluation=evaluation)
    strategy.distribution.draw()
    with Calls() as counted:
        space(torch.randn(1, 6, 8, 8))
    assert 1 <= counted.convolutions <= 2 * paths
    if evaluation == "separate":
        assert counted.convolutions == 2 * paths


def test_gumbel_hard_evaluates_all_candidates() -> None:
    space = TwoBlocks(("conv_1x1", "conv_3x3", "conv_5x5", "growth1_3x3"), [4, 8])
    strategy = supernet(space, relaxation="gumbel_hard", quantization="none", evaluation="separate")
    strategy.distribution.draw()
    with Calls() as counted:
        space(torch.randn(1, 6, 8, 8))
    assert counted.convolutions == 2 * 5


def test_the_paths_drawn_have_the_weights_that_learn() -> None:
    torch.manual_seed(0)
    space = TwoBlocks(("conv_1x1", "conv_3x3", "conv_5x5"), [4, 8])
    strategy = supernet(space, relaxation="one_path")
    draw = strategy.distribution.draw()
    space(torch.randn(1, 6, 8, 8)).sum().backward()
    for block in space.both.blocks:
        chosen = draw.active(block.label)
        got = [index for index, name in enumerate(block.names) if block[name][1].weight.grad is not None]
        assert tuple(got) == chosen


def test_separate_weights_are_one_for_each_precision_and_the_derived_network_has_the_chosen_ones() -> None:
    torch.manual_seed(0)
    space = TwoBlocks(("conv_3x3", "growth1_3x3"), [4, 8, 32])
    strategy = supernet(space, quantization="direct_separate")
    layer = space.both.blocks[0]["conv_3x3"][1]
    assert [layer.weight_of(index).data_ptr() for index in range(3)] == list(
        dict.fromkeys(layer.weight_of(index).data_ptr() for index in range(3))
    )
    optimizer = torch.optim.SGD(space.parameters(), 0.5)
    for _ in range(2):
        strategy.distribution.draw()
        space(torch.randn(2, 6, 8, 8)).square().mean().backward()
        optimizer.step()
    for index, bits in enumerate(layer.bits_choice.values):
        sample = {"block_0": "conv_3x3", "block_1": "conv_3x3"}
        sample |= {f"block_{block}__conv_3x3__bits": bits for block in (0, 1)}
        network = space.freeze(sample)
        assert torch.equal(network.both.blocks[0][1].weight, layer.weight_of(index))
        derived = network.both.blocks[0][1]
        if bits != 32:
            assert torch.equal(derived.weight_quantizer.step, layer.weight_quantizers[index].step)
            name = layer.quantizer_name(index)
            assert torch.equal(derived.activation_quantizer.step, layer.activation_quantizers[name].step)
            assert derived.activation_quantizer.started
    assert not torch.equal(layer.weight_of(0), layer.weight_of(1))


def test_direct_quantization_decided_for_one_architecture_is_that_network() -> None:
    torch.manual_seed(0)
    space = TwoBlocks(("conv_3x3", "growth1_3x3"), [4, 8])
    strategy = supernet(space, quantization="direct")
    x = torch.randn(2, 6, 8, 8)
    space(x)  # starts the steps
    sample = {f"block_{block}": "growth1_3x3" for block in (0, 1)}
    sample |= {f"block_{block}__growth1_3x3__bits": bits for block, bits in ((0, 4), (1, 8))}
    for choice in strategy.distribution.tree:
        if choice.label in sample:
            chosen = torch.arange(len(choice.values)) == choice.values.index(sample[choice.label])
            strategy.distribution.logits[choice.label].data.copy_(torch.where(chosen, 1e4, -1e4))
    strategy.distribution.draw()
    space.eval()
    torch.testing.assert_close(space(x), torch.cat(space.freeze(sample).eval().both(x), dim=1))


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel_hard"])
def test_fast_evaluation_has_finite_gradients_where_no_reader_of_the_shared_noise_has_a_probability(
    relaxation: str,
) -> None:
    torch.manual_seed(0)
    space = TwoBlocks(("conv_1x1", "conv_3x3", "increase_3x3"), [4, 8])  # the last begins with no ReLU
    strategy = supernet(space, evaluation="fast", relaxation=relaxation)
    for block in ("block_0", "block_1"):
        strategy.distribution.logits[block].data.copy_(torch.tensor([-200.0, -200.0, 200.0]))
    strategy.distribution.draw()
    space(torch.randn(2, 6, 8, 8)).square().mean().backward()
    for parameters in (space.parameters(), strategy.distribution.parameters()):
        assert all(p.grad is None or p.grad.isfinite().all() for p in parameters)


def test_a_derived_network_holds_nothing_of_its_supernet() -> None:
    torch.manual_seed(0)
    space = TwoBlocks(SINGLES, [4, 8])
    strategy = supernet(space)
    x = torch.randn(2, 6, 8, 8)
    space(x)  # makes plans and a noise bank of megabytes
    network = space.eval().freeze(strategy.most_likely())
    assert {type(module).__name__ for module in network.modules()} == {
        "TwoBlocks", "SharedInput", "ModuleList", "Sequential", "ReLU", "QuantConv2d",
        "LSQWeightQuantizer", "LSQActivationQuantizer",
    }  # fmt: skip
    assert not network.both.training
    file = io.BytesIO()
    torch.save(network.both, file)
    assert len(file.getvalue()) < 100_000


def test_ranges_of_weights_follow_optimizers_that_write_to_data() -> None:
    torch.manual_seed(0)
    space = TwoBlocks(("conv_1x1", "conv_3x3"), [4, 8])
    strategy = supernet(space)
    layer = space.both.blocks[0]["conv_3x3"][1]
    spans = []
    for step in range(2):
        for phase in (0, 1):
            strategy.context.bank.begin(0, 0, step, phase)
            spans.append(layer.weight_span())
        layer.weight.data.mul_(10)
    assert spans[0] is spans[1]
    assert spans[2].item() == pytest.approx(10 * spans[0].item())
    layer.weight.data = 10 * layer.weight.data
    assert layer.weight_span().item() == pytest.approx(1000 * spans[0].item())
    with torch.no_grad():
        layer.weight.mul_(10)
    assert layer.weight_span().item() == pytest.approx(10_000 * spans[0].item())
    assert copy.deepcopy(layer).weight_span().item() == pytest.approx(10_000 * spans[0].item())


@pytest.mark.parametrize("evaluation", ["exact", "fast", "separate"])
def test_a_sample_without_its_batch_gives_what_a_batch_of_one_does(evaluation: str) -> None:
    torch.manual_seed(0)
    space = TwoBlocks(("conv_1x1", "conv_3x3", "growth1_3x3"), [4, 8], widths=(6, 6))
    strategy = supernet(space, evaluation=evaluation)
    x = torch.randn(6, 8, 8)
    outputs = []
    for batch in (x[None], x):
        strategy.context.bank.begin(0, 0, 0, 0)
        strategy.distribution.draw()
        outputs.append([output.squeeze(0) for output in (*space.both(batch), space.both.blocks[0](batch))])
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other)


def test_computations_of_draws_do_not_pile_up() -> None:
    torch.manual_seed(0)
    space = TwoBlocks(SINGLES, [4, 8])
    strategy = supernet(space, relaxation="dropout", quantization="none")
    with torch.no_grad():
        for _ in range(MOST_COMPUTATIONS + 100):
            strategy.distribution.draw()
            space(torch.ones(1, 6, 1, 1))
    assert 0 < len(space.both._computations) <= MOST_COMPUTATIONS
