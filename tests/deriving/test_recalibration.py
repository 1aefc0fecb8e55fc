"""Recalibrated batch norm statistics are those of all batches together, and nothing else of a network changes."""

import copy
import itertools

import pytest
import torch
from torch import nn

from quantnas_ext.deriving.calibration import calibrate, recalibrate_batch_norm, score
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import QuantConv2d, initial_step, quantized_layers


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm2d(3),
        QuantConv2d(3, 4, 3, padding=1, bits=4),
        nn.Dropout(0.5),
        nn.BatchNorm2d(4, affine=False),
        QuantConv2d(4, 3, 1, bits=8),
    )


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    # Of different sizes and means: averages of the batches' statistics are not those of the union.
    inputs = [shift + torch.rand(size, 3, 6, 5, generator=generator) for size, shift in ((4, 0.0), (4, 2.0), (1, -1.0))]
    return [(x, x) for x in inputs]


def test_statistics_are_those_of_the_union_of_the_batches() -> None:
    model = network()
    calibrate(model, batches())
    union = torch.cat([x for x, _ in batches()])
    first, second = (layer for layer in model if isinstance(layer, nn.BatchNorm2d))
    torch.testing.assert_close(first.running_mean, union.mean((0, 2, 3)))
    torch.testing.assert_close(first.running_var, union.var((0, 2, 3)))
    assert int(first.num_batches_tracked) == 3
    # Behind the first layer by hand: it normalises by each batch, the quantizers are not started.
    seen = []
    fresh = network().eval()
    for x, _ in batches():
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
        seen.append(fresh[1]((x - mean) / (var + first.eps).sqrt()))
    torch.testing.assert_close(second.running_mean, torch.cat(seen).mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(second.running_var, torch.cat(seen).var((0, 2, 3)), rtol=1e-2, atol=1e-3)


def test_all_else_stays_as_it_is() -> None:
    model = network()
    model.train()
    model[3].eval()
    model(batches()[1][0]).sum().backward()  # starts the quantizers, gives gradients
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    random = torch.get_rng_state()
    calibrate(model, batches())
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {f"{layer}.{name}" for layer in (0, 3) for name in statistics}
    assert modes == [m.training for m in model.modules()]
    assert all(layer.momentum == 0.1 and layer.track_running_stats for layer in (model[0], model[3]))
    assert not any(module._forward_pre_hooks for module in model.modules())
    kept = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(gradients, kept, strict=True))
    assert torch.equal(random, torch.get_rng_state())


def test_recalibration_alone_starts_no_quantizer_and_calibration_starts_all_from_all_batches() -> None:
    model = network()
    recalibrate_batch_norm(model, batches())
    assert not any(layer.activation_quantizer.started for layer in quantized_layers(model))
    calibrate(model, batches())
    assert all(layer.activation_quantizer.started for layer in quantized_layers(model))
    model.eval()
    inputs = [model[0](x) for x, _ in batches()]
    step = initial_step(torch.cat([x.repeat(4 // len(x), 1, 1, 1) for x in inputs]), 4, signed=True)
    torch.testing.assert_close(model[1].activation_quantizer.step, step, rtol=0.09, atol=0)
    assert abs(initial_step(inputs[0], 4, signed=True) / step - 1) > 0.3
    frozen = network().requires_grad_(False)
    with torch.inference_mode():
        calibrate(frozen, batches())
    assert torch.equal(model[1].activation_quantizer.log_step, frozen[1].activation_quantizer.log_step)


def test_without_batch_norm_nothing_is_read_and_without_batches_nothing_is_made_up() -> None:
    def unreadable():  # type: ignore[no-untyped-def]
        raise AssertionError("read")
        yield

    recalibrate_batch_norm(nn.Sequential(nn.Conv2d(3, 3, 1)), unreadable())
    model = network()
    before = copy.deepcopy(model.state_dict())
    for act in (recalibrate_batch_norm, calibrate, lambda m, b: score(m, b, {})):
        with pytest.raises(InputError, match="no batch"):
            act(model, [])
    with pytest.raises(AssertionError, match="read"):
        recalibrate_batch_norm(model, itertools.chain(batches(), unreadable()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(layer.track_running_stats for layer in (model[0], model[3])) and model.training
