"""Activation steps: started from many batches, put right when far off, the same after a resume, and learned."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from quantnas_ext.quantization import (
    LSQActivationQuantizer,
    QuantConv2d,
    QuantLinear,
    activation_quantizers,
    give_steps_a_group,
    initial_step,
    set_quantization,
    step_parameters,
    watch_steps,
    without_observation,
)
from quantnas_ext.quantization.lsq import integer_range
from quantnas_ext.quantization.magnitudes import largest_magnitude, magnitude_histogram, squared_errors
from quantnas_ext.quantization.quantizers import OBSERVED_BATCHES, WATCHED_BATCHES


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_error_on_a_histogram_is_that_of_the_values(bits: int, signed: bool) -> None:
    x = torch.randn(200_000, generator=generator()) * torch.rand(200_000, generator=generator(1))
    low, high = integer_range(bits, signed=signed)
    steps = torch.tensor([0.3, 1.0, 3.0]) * initial_step(x, bits, signed=signed)
    histogram, largest = magnitude_histogram(x, signed=signed), largest_magnitude(x, signed=signed)
    found = squared_errors(histogram, largest, steps, bits, signed=signed)
    values = x if signed else x.relu()
    true = [((values / step).clamp(low, high).round() * step - values).square().mean().item() for step in steps]
    assert found.tolist() == pytest.approx(true, rel=0.05)


def test_a_step_fits_all_batches_and_not_the_first_one() -> None:
    batches = [0.02 * torch.rand(4, 3, 8, 8, generator=generator(seed)) for seed in range(24)]
    for batch in batches[5::6]:
        batch[0, :, :2, :2] = 1.0  # the first batches are all dark
    quantizer = LSQActivationQuantizer(4, signed=False)
    for batch in batches:
        quantizer(batch)
    quantizer.fit()
    best = initial_step(torch.cat(batches), 4, signed=False)
    torch.testing.assert_close(quantizer.step.detach(), best, rtol=0.1, atol=0)
    assert initial_step(batches[0], 4, signed=False) < 0.1 * best


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_one_value_that_is_no_number_never_becomes_a_step(bad: float) -> None:
    x = torch.rand(2, 3, 5, 5, generator=generator())
    spoilt = x.clone()
    spoilt[0, 0, 0, 0] = bad
    spoilt[0, 0, 0, 1] = x.max()
    for signed in (True, False):
        quantizer, clean = LSQActivationQuantizer(4, signed=signed), LSQActivationQuantizer(4, signed=signed)
        quantizer(torch.full((1, 2), bad))
        assert not quantizer.started
        quantizer(spoilt), clean(x)
        torch.testing.assert_close(quantizer.step, clean.step, rtol=0.1, atol=0)
    weight = torch.randn(3, 4, generator=generator())
    broken = weight.clone()
    broken[0, 0], broken[1] = bad, bad
    step = initial_step(broken, 4, signed=True, per_channel=True)
    torch.testing.assert_close(step[2], initial_step(weight, 4, signed=True, per_channel=True)[2])
    layer = QuantLinear(4, 3, bits=4)
    layer.weight.data.copy_(broken)
    layer.reset_steps()
    assert (layer.weight_quantizer.step > 1e-4).all() and layer.weight_quantizer.step.isfinite().all()


def test_a_negative_batch_starts_no_unsigned_step() -> None:
    quantizer = LSQActivationQuantizer(4, signed=False)
    assert not quantizer(-torch.rand(2, 3, generator=generator())).any() and not quantizer.started


def test_after_an_unlike_batch_a_step_comes_back_although_its_gradient_is_nothing() -> None:
    quantizer = LSQActivationQuantizer(4, signed=False)
    batch = torch.rand(4, 3, 8, 8, generator=generator())
    for _ in range(OBSERVED_BATCHES + 1):
        quantizer(batch)
    right = quantizer.step.item()
    quantizer.log_step.data.add_(math.log(0.05))  # nearly all is clipped
    for _ in range(40):
        quantizer(batch)
    assert quantizer.step.item() == pytest.approx(right, rel=0.1)
    quantizer.log_step.data.add_(math.log(1.3))  # what learning does stays
    for _ in range(WATCHED_BATCHES):
        quantizer(batch)
    assert quantizer.step.item() == pytest.approx(1.3 * right, rel=1e-4)
    quantizer.log_step.data.add_(math.log(20.0))  # the watch is over
    state = copy.deepcopy(quantizer.state_dict())
    for _ in range(40):
        quantizer(100 * batch)
    assert all(torch.equal(state[name], tensor) for name, tensor in quantizer.state_dict().items())


def test_a_step_goes_on_from_a_state_dict_as_if_nothing_had_happened() -> None:
    quantizer = LSQActivationQuantizer(4, signed=True)
    batches = [seed * torch.randn(2, 3, 4, generator=generator(seed)) for seed in range(130)]
    twin = None
    for index, batch in enumerate(batches):
        if index in (1, 30, 70, 101):
            twin = LSQActivationQuantizer(4, signed=True)
            twin.load_state_dict(quantizer.state_dict())
        result = quantizer(batch)
        if twin is not None:
            assert torch.equal(twin(batch), result)
    assert twin is not None
    assert all(torch.equal(twin.state_dict()[name], tensor) for name, tensor in quantizer.state_dict().items())


def test_a_state_dict_of_step_and_start_alone_loads_strictly_and_its_step_is_learned_only() -> None:
    layer, x = QuantConv2d(3, 4, 1, bits=4), torch.rand(2, 3, 5, 5, generator=generator())
    layer(x)
    old = without_observation(layer.state_dict())
    names = {"weight", "bias", "weight_quantizer.log_step"}
    assert old.keys() == names | {"activation_quantizer.log_step", "activation_quantizer.started"}
    other = QuantConv2d(3, 4, 1, bits=4)
    other(7 * x)
    other.load_state_dict(old)
    step = other.activation_quantizer.step.item()
    for _ in range(100):
        other(50 * x)
    assert other.activation_quantizer.step.item() == step == layer.activation_quantizer.step.item()
    old["activation_quantizer.started"] = torch.tensor(False)
    other.load_state_dict(old)
    other(50 * x)
    assert other.activation_quantizer.step.item() > 10 * step
    with pytest.raises(RuntimeError, match="started"):
        del old["activation_quantizer.started"]
        other.load_state_dict(old)


def test_inference_mode_frozen_steps_and_recomputed_passes_leave_no_trace() -> None:
    layer, x = QuantConv2d(3, 4, 1, bits=4), torch.rand(2, 3, 5, 5, generator=generator())
    state = copy.deepcopy(layer.state_dict())
    with torch.inference_mode():
        layer(x)
    layer.requires_grad_(False)(x)
    assert all(torch.equal(state[name], tensor) for name, tensor in layer.state_dict().items())
    layer.requires_grad_(True)
    for _ in range(3):  # training goes on
        layer(x).sum().backward()
    assert int(layer.activation_quantizer.seen) == 3
    plain = copy.deepcopy(layer)
    plain.zero_grad(), layer.zero_grad()
    plain(2 * x).square().sum().backward()
    checkpoint(layer, 2 * x, use_reentrant=False).square().sum().backward()
    assert int(layer.activation_quantizer.seen) == 4
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(plain.parameters(), layer.parameters(), strict=True))


def test_a_layer_used_twice_before_the_backward_pass_has_the_gradients_of_both_uses() -> None:
    layer = QuantConv2d(3, 3, 1, bits=4, signed=False)
    x = torch.rand(2, 3, 5, 5, generator=generator())
    layer(x)
    layer(layer(x).relu()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_the_bias_of_an_unstarted_layer_sits_on_the_grid_of_the_step_in_use() -> None:
    layer, x = QuantConv2d(3, 4, 1, bits=8).eval(), torch.rand(2, 3, 5, 5, generator=generator())
    _, _, bias = layer.operands(x)
    grid = layer.weight_quantizer.step.flatten() * initial_step(x, 8, signed=True)
    torch.testing.assert_close(bias, (layer.bias / grid).round() * grid)
    assert (bias - layer.bias).abs().max() < 1e-4  # on a grid of step 1 all would be zero
    _, _, bias = layer.operands(torch.zeros_like(x))
    assert torch.equal(bias, layer.bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_small_steps_leave_a_half_precision_layer_finite(dtype: torch.dtype, training: bool) -> None:
    layer = QuantLinear(4, 3, bits=8)
    layer.weight.data.mul_(1e-3)
    layer.reset_steps()
    layer.to(dtype).train(training)
    x = (1e-3 * torch.rand(5, 4, generator=generator())).to(dtype)
    for _ in range(3):
        output = layer(x)
        assert output.dtype == dtype and output.isfinite().all()
    torch.testing.assert_close(output.float(), layer.bias.float().expand(5, 3), rtol=0.02, atol=1e-3)


def network(bits: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [QuantConv2d(*c, 3, padding=1, bits=bits, signed=False) for c in ((3, 8), (8, 8), (8, 3))]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def batch(seed: int) -> tuple[Tensor, Tensor]:
    coarse = torch.rand(4, 3, 4, 4, generator=generator(seed))
    x = nn.functional.interpolate(coarse, size=(10, 10), mode="bicubic").clamp(0, 1)
    return x, 0.7 * x.flip(1) + 0.3 * nn.functional.avg_pool2d(x, 3, 1, 1)


def trained(model: nn.Module, iterations: int, seed: int, rate: float = 1e-3) -> float:
    """Train; the mean loss of the last 30 iterations."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    give_steps_a_group(optimizer, model)
    losses = []
    for iteration in range(iterations):
        x, y = batch(seed + iteration)
        optimizer.zero_grad()
        loss = nn.functional.l1_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-30:]) / 30


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_steps_ten_times_too_small_or_too_large_recover_within_300_iterations(bits: int) -> None:
    start = network(bits)
    trained(start, 200, 0, 3e-3)
    losses = {}
    for factor in (1.0, 0.1, 10.0):
        model = copy.deepcopy(start)
        for step in step_parameters(model):
            step.data.add_(math.log(factor))
        watch_steps(model)
        losses[factor] = trained(model, 300, 1000)
    assert max(losses[0.1], losses[10.0]) < 1.25 * losses[1.0] + 0.003


@pytest.mark.parametrize("bits", [8, 4])
def test_activation_steps_learn_by_their_gradient_alone(bits: int) -> None:
    """LSQ's scale makes these gradients so small that Adam with its own epsilon does not see them."""
    start = network(bits)
    trained(start, 200, 0, 3e-3)
    moved = []
    for own_group in (True, False):
        model = copy.deepcopy(start)
        for quantizer in activation_quantizers(model):
            quantizer.seen.fill_(WATCHED_BATCHES)
            quantizer.mirror()
            quantizer.log_step.data.add_(math.log(0.1))
        before = torch.stack([q.log_step.detach().clone() for q in activation_quantizers(model)])
        optimizer = torch.optim.Adam([{"params": list(model.parameters()), "weight_decay": 0.1}], 1e-3)
        if own_group:
            give_steps_a_group(optimizer, model)
            assert [group["lr"] for group in optimizer.param_groups] == [1e-3, pytest.approx(3e-3)]
            assert optimizer.param_groups[1]["weight_decay"] == 0 and optimizer.param_groups[1]["eps"] < 1e-12
        for iteration in range(60):
            x, y = batch(1000 + iteration)
            optimizer.zero_grad()
            (1e-6 * nn.functional.l1_loss(model(x), y)).backward()  # gradients as small as those of large images
            optimizer.step()
        after = torch.stack([q.log_step.detach() for q in activation_quantizers(model)])
        moved.append((after - before).mean().item())
    assert moved[0] > 0.06 and moved[0] > 2 * abs(moved[1])


def test_an_optimizer_without_steps_stays_as_it_is() -> None:
    model = nn.Sequential(QuantConv2d(3, 3, 1, bits=32))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    give_steps_a_group(optimizer, model)
    assert len(optimizer.param_groups) == 1
    set_quantization(model, True)
