"""LSQ against the equations of its paper and against torch's fake quantization."""

import pytest
import torch

from quantnas_ext.quantization import (
    LSQActivationQuantizer,
    QuantConv2d,
    QuantLinear,
    initial_step,
    lsq_quantize,
    reset_steps,
    set_quantization,
)
from quantnas_ext.quantization.lsq import integer_range


def equation_3(value: float, step: float, low: int, high: int) -> float:
    """The derivative of the quantized value with respect to the step, case by case as the paper prints it."""
    ratio = value / step
    if ratio <= low:
        return float(low)
    if ratio >= high:
        return float(high)
    return -ratio + round(ratio)  # Python rounds halves to even, as torch does


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_step_gradient_is_equation_3_and_input_gradient_equation_5_also_at_the_edges(bits: int, signed: bool) -> None:
    step = 0.25  # a power of two: the edges are exact
    low, high = integer_range(bits, signed=signed)
    ratios = [low - 3.7, low - 1, low, low + 0.3, 0.0, 0.5, 0.6, high - 0.4, high, high + 1, high + 9.1]
    for ratio in ratios:
        x = torch.tensor([ratio * step], requires_grad=True)
        s = torch.tensor(step, requires_grad=True)
        lsq_quantize(x, s, bits, signed=signed, elements=7).backward()
        scale = 1 / (high * 7) ** 0.5
        assert s.grad is not None and x.grad is not None
        assert s.grad.item() == pytest.approx(scale * equation_3(x.item(), step, low, high), rel=1e-5, abs=1e-7)
        assert x.grad.item() == float(low < x.item() / step < high)


def test_per_channel_values_equal_torch_fake_quantization() -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    for bits in (2, 3, 4, 8):
        step = initial_step(weight, bits, signed=True, per_channel=True)
        low, high = integer_range(bits, signed=True)
        expected = torch.fake_quantize_per_channel_affine(
            weight, step.flatten(), torch.zeros(6, dtype=torch.int32), 0, low, high
        )
        torch.testing.assert_close(lsq_quantize(weight, step, bits, signed=True), expected)


def test_per_channel_step_gradient_is_the_sum_over_that_channel() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, upstream = torch.randn(3, 5, generator=generator), torch.randn(3, 5, generator=generator)
    step = initial_step(weight, 4, signed=True, per_channel=True).requires_grad_()
    lsq_quantize(weight, step, 4, signed=True).backward(upstream)
    for channel in range(3):
        s = step[channel].item()
        total = (
            sum(upstream[channel, i].item() * equation_3(weight[channel, i].item(), s, -8, 7) for i in range(5))
            / (7 * 5) ** 0.5
        )
        assert step.grad is not None
        assert step.grad[channel].item() == pytest.approx(total, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_initial_step_has_no_more_error_than_the_papers_start_or_the_full_range(bits: int, signed: bool) -> None:
    x = torch.randn(5, 400, generator=torch.Generator().manual_seed(2)) * torch.tensor([[1e-3], [0.1], [1], [7], [0]])
    x = x if signed else x.relu()
    low, high = integer_range(bits, signed=signed)

    def error(step: torch.Tensor) -> torch.Tensor:
        return ((x / step).clamp(low, high).round() * step - x).square().mean(1)

    found = initial_step(x, bits, signed=signed, per_channel=True)
    assert found.shape == (5, 1) and (found > 0).all()
    rivals = {"LSQ": 2 * x.abs().mean(1, keepdim=True) / high**0.5, "range": x.abs().amax(1, keepdim=True) / high}
    for rival in rivals.values():
        assert (error(found)[:4] <= 1.01 * error(rival)[:4]).all()
    assert error(found)[4] == 0
    torch.testing.assert_close(initial_step(x[2], bits, signed=signed), found[2, 0])


def test_steps_stay_positive_under_an_optimizer_that_pushes_them_down() -> None:
    layer = QuantConv2d(2, 2, 3, bits=4, signed=False)
    layer(torch.rand(1, 2, 5, 5))
    steps = [p for name, p in layer.named_parameters() if "log_step" in name]
    optimizer = torch.optim.SGD(steps, lr=10.0)
    for _ in range(50):
        optimizer.zero_grad()
        sum(p.sum() for p in steps).backward()
        optimizer.step()
    assert layer.weight_quantizer.step.min() > 0 and layer.activation_quantizer.step > 0
    assert torch.isfinite(layer(torch.rand(1, 2, 5, 5))).all()


@pytest.mark.parametrize("layer", [QuantConv2d(3, 4, 3, bits="w4a8"), QuantLinear(3, 4, bits=2)])
def test_state_dict_loads_strictly_into_a_new_layer_and_keeps_the_started_step(layer: torch.nn.Module) -> None:
    x = torch.randn(2, 3, 6, 6) if isinstance(layer, QuantConv2d) else torch.randn(5, 3)
    parameters = {name for name, _ in layer.named_parameters()}
    layer(x)
    expected = layer.eval()(x)
    assert {name for name, _ in layer.named_parameters()} == parameters
    twin = type(layer)(3, 4, 3, bits="w4a8") if isinstance(layer, QuantConv2d) else QuantLinear(3, 4, bits=2)
    twin.load_state_dict(layer.state_dict(), strict=True)
    twin.eval()(10 * x)  # a first batch of another size must not restart the loaded step
    torch.testing.assert_close(twin(x), expected, rtol=0, atol=0)


def test_full_precision_layers_have_no_quantizer_and_equal_the_plain_layer() -> None:
    layer = QuantConv2d(3, 4, 3, bits=32)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias), rtol=0, atol=0)


def test_gradient_of_an_activation_step_counts_the_elements_of_one_sample() -> None:
    """With the whole batch counted, a batch of copies would give another gradient than its mean loss does."""
    quantizer = LSQActivationQuantizer(4, signed=False)
    sample = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    quantizer(sample)
    gradients = []
    for copies in (1, 4):
        quantizer.log_step.grad = None
        quantizer(sample.repeat(copies, 1, 1, 1)).sum().backward()
        gradients.append(quantizer.log_step.grad / copies)
    torch.testing.assert_close(gradients[0], gradients[1])
    step = quantizer.step.item()
    total = sum(equation_3(value, step, 0, 15) for value in sample.flatten().tolist()) / (15 * 75) ** 0.5
    assert gradients[0].item() == pytest.approx(total * step, rel=1e-4)


def test_zeros_start_no_activation_step_and_leave_weights_trainable() -> None:
    layer = QuantConv2d(2, 3, 1, bits=4, bias=False)
    layer(torch.zeros(1, 2, 4, 4))
    assert not layer.activation_quantizer.started
    layer(torch.rand(1, 2, 4, 4))
    assert layer.activation_quantizer.started
    with torch.no_grad():
        layer.weight[1].zero_()
    reset_steps(layer)
    steps = layer.weight_quantizer.step.flatten()
    assert steps[1].item() == pytest.approx((steps[0] + steps[2]).item() / 2, rel=1e-5)
    torch.nn.init.zeros_(layer.weight)
    reset_steps(layer)
    assert (layer.weight_quantizer.step > 1e-3).all()


def test_looking_at_an_untrained_network_leaves_no_trace_in_it() -> None:
    layer = QuantConv2d(2, 3, 3, bits=4).eval()
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    dark, bright = 0.01 * torch.rand(1, 2, 6, 6), torch.rand(1, 2, 6, 6)
    alone = layer(bright)
    layer(dark)
    torch.testing.assert_close(layer(bright), alone, rtol=0, atol=0)
    assert all(torch.equal(state[name], tensor) for name, tensor in layer.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bits", [4, "w4a32"])
def test_layers_work_in_the_dtype_they_are_converted_to(dtype: torch.dtype, bits: int | str) -> None:
    layer = QuantConv2d(2, 3, 3, bits=bits).to(dtype)
    output = layer(torch.rand(2, 2, 6, 6, dtype=dtype))
    assert output.dtype == dtype
    output.sum().backward()


def test_bias_sits_on_the_grid_of_an_integer_accumulator() -> None:
    layer = QuantConv2d(3, 4, 1, bits=4)
    _, _, bias = layer.operands(torch.randn(2, 3, 6, 6))
    assert bias is not None
    grid = layer.weight_quantizer.step.flatten() * layer.activation_quantizer.step
    assert ((bias / grid) - (bias / grid).round()).abs().max() < 1e-3
    assert not torch.equal(bias, layer.bias)
    bias.sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.ones(4))


def test_quantization_can_be_switched_off_and_steps_restarted() -> None:
    layer = QuantConv2d(3, 4, 3, bits=2, bias=False)
    x = torch.randn(2, 3, 6, 6)
    plain = torch.nn.functional.conv2d(x, layer.weight)
    set_quantization(layer, False)
    torch.testing.assert_close(layer(x), plain, rtol=0, atol=0)
    set_quantization(layer, True)
    assert not torch.allclose(layer(x), plain)
    with torch.no_grad():
        layer.weight.mul_(3.0)
    reset_steps(layer)
    torch.testing.assert_close(
        layer.weight_quantizer.step, initial_step(layer.weight, 2, signed=True, per_channel=True)
    )
    assert not layer.activation_quantizer.started


def test_layers_run_forward_and_backward_under_bfloat16_autocast() -> None:
    layer = QuantConv2d(3, 4, 3, bits=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(torch.randn(2, 3, 6, 6))
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_what_the_cpu_computes() -> None:
    layer, x = QuantConv2d(3, 4, 3, bits=4), torch.randn(2, 3, 6, 6)
    expected = layer(x)
    torch.testing.assert_close(layer.cuda()(x.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)
