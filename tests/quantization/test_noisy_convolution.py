"""Fused noise: gradients against finite differences, memory against plain convolutions."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quantnas_ext.quantization.noise.convolution import Geometry, Noise, noisy_conv2d, noisy_relu


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("geometry", [Geometry(padding=(1, 1)), Geometry((2, 1), (2, 2), (2, 2), 2)])
def test_noisy_convolution_is_its_formula_with_the_gradients_of_finite_differences(
    relu: bool, masked: bool, geometry: Geometry
) -> None:
    torch.manual_seed(0)
    x, weight, bias = doubles(2, 4, 6, 5), doubles(6, 4 // geometry.groups, 3, 3), doubles(6)
    with torch.no_grad():
        x.view(-1)[::3] = 0  # what a mask leaves alone
    x_unit, weight_unit = torch.randn_like(x), torch.randn_like(weight)
    x_scale, weight_scale, factor = (torch.rand((), dtype=torch.float64, requires_grad=True) for _ in range(3))

    def function(*inputs: Tensor) -> Tensor:
        x, weight, bias, x_scale, weight_scale, factor = inputs
        noises = {
            "x_noise": Noise(x_scale, x_unit, of_range=relu),
            "weight_noise": Noise(weight_scale, weight_unit, torch.tensor(0.7, dtype=torch.float64)),
        }
        return noisy_conv2d(x, weight, bias, geometry, **noises, factor=factor, relu=relu, masked=masked)

    def formula(*inputs: Tensor) -> Tensor:
        x, weight, bias, x_scale, weight_scale, factor = inputs
        x = x.relu() if relu else x
        step = x_scale * (x.max() - x.min()).detach() if relu else x_scale
        unit = x_unit * (x != 0) if masked else x_unit
        return factor * F.conv2d(x + step * unit, weight + 0.7 * weight_scale * weight_unit, bias, *geometry)

    inputs = (x, weight, bias, x_scale, weight_scale, factor)
    torch.testing.assert_close(function(*inputs), formula(*inputs))
    upstream = torch.randn_like(formula(*inputs))
    for one, other in zip(
        torch.autograd.grad(function(*inputs), inputs, upstream),
        torch.autograd.grad(formula(*inputs), inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    if not (masked or relu):  # the mask jumps at zero, and the range has no gradient
        assert torch.autograd.gradcheck(function, inputs)


def test_the_gradient_of_weight_noise_that_frozen_weights_get_estimates_the_whole_one() -> None:
    torch.manual_seed(0)
    scales = {name: torch.tensor(0.2, requires_grad=True) for name in ("estimated", "whole")}
    found: dict[str, list[float]] = {"estimated": [], "whole": []}
    for _ in range(300):
        x, weight, upstream = torch.rand(4, 3, 20, 20), torch.randn(5, 3, 3, 3), torch.rand(4, 5, 20, 20)
        unit = torch.rand_like(weight) - 0.4
        for name, scale in scales.items():
            noise = Noise(scale, unit)
            kernel = weight.requires_grad_(name == "whole")
            y = noisy_conv2d(x, kernel, None, Geometry(padding=(1, 1)), weight_noise=noise)
            found[name].append(float(torch.autograd.grad(y, scale, upstream)[0]))
    estimated, whole = (torch.tensor(found[name]) for name in ("estimated", "whole"))
    assert not torch.allclose(estimated, whole, rtol=1e-3)
    assert estimated.mean().item() == pytest.approx(whole.mean().item(), rel=0.02)
    assert torch.corrcoef(torch.stack([estimated, whole]))[0, 1] > 0.9


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_of_input_noise_that_nothing_else_needs_has_the_mean_of_the_whole_one(shared: bool) -> None:
    torch.manual_seed(0)
    x, unit, upstream = torch.rand(8, 6, 9, 9), torch.randn(8, 6, 9, 9), torch.randn(8, 4, 9, 9)
    weight, scale = torch.randn(4, 3, 3, 3), torch.tensor(0.2, requires_grad=True)
    geometry = Geometry(padding=(1, 1), groups=2)
    found = []
    for first in range(0, 8, 2):  # any two of the eight samples come first once
        x_, unit_, upstream_ = (tensor.roll(-first, 0) for tensor in (x, unit, upstream))
        if shared:
            y = noisy_conv2d(noisy_relu(x_, Noise(scale, unit_)), weight, None, geometry, estimated=True)
        else:
            y = noisy_conv2d(x_, weight, None, geometry, x_noise=Noise(scale, unit_))
        found.append(torch.autograd.grad(y, scale, upstream_)[0])
    (whole,) = torch.autograd.grad(F.conv2d(x + scale * unit, weight, None, *geometry), scale, upstream)
    torch.testing.assert_close(torch.stack(found).mean(), whole)
    assert len({round(float(value), 3) for value in found}) == 4


@pytest.mark.parametrize("masked", [False, True])
def test_noisy_relu_is_its_formula(masked: bool) -> None:
    torch.manual_seed(0)
    x, scale = doubles(3, 4, 5), torch.rand((), dtype=torch.float64, requires_grad=True)
    unit = torch.randn_like(x)
    ours = noisy_relu(x, Noise(scale, unit), masked=masked)
    formula = x.relu() + scale * (unit * (x > 0) if masked else unit)
    torch.testing.assert_close(ours, formula)
    assert torch.autograd.gradcheck(lambda x, scale: noisy_relu(x, Noise(scale, unit), masked=masked), (x, scale))


def test_second_order_gradients_which_would_be_wrong_are_refused() -> None:
    x, weight = torch.rand(1, 2, 4, 4, requires_grad=True), torch.rand(2, 2, 3, 3, requires_grad=True)
    noise = Noise(torch.tensor(0.5), torch.rand(1, 2, 4, 4))
    for y in (noisy_conv2d(x, weight, None, Geometry(), x_noise=noise), noisy_relu(x, noise)):
        with pytest.raises(RuntimeError, match="first-order gradients only"):
            torch.autograd.grad(y.square().sum(), x, create_graph=True)


def test_noise_saves_no_more_than_its_kernel_beside_what_a_convolution_behind_a_relu_does() -> None:
    x, weight = torch.randn(2, 8, 16, 16, requires_grad=True), torch.randn(8, 8, 3, 3, requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    noise = Noise(scale, torch.rand_like(x)), Noise(scale, torch.rand_like(weight))

    def saved(noisy: bool) -> int:
        storages = {}

        def keep(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = F.relu(x)
            noises = {"x_noise": noise[0], "weight_noise": noise[1]} if noisy else {}
            noisy_conv2d(y, weight, None, Geometry(padding=(1, 1)), **noises)
        return sum(storages.values())

    assert saved(True) == saved(False) + weight.numel()


def test_autocast_computes_in_its_dtype_and_gives_gradients_in_the_weights_dtype() -> None:
    x, weight = torch.randn(1, 4, 8, 8, requires_grad=True), torch.randn(4, 4, 3, 3, requires_grad=True)
    noise = Noise(torch.tensor(0.1, requires_grad=True), torch.rand_like(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = noisy_conv2d(x, weight, None, Geometry(padding=(1, 1)), x_noise=noise)
    assert y.dtype == torch.bfloat16
    y.float().square().mean().backward()
    assert x.grad is not None and weight.grad is not None
    assert x.grad.dtype == weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), F.conv2d(x + 0.1 * noise.unit, weight, padding=1), rtol=0.05, atol=0.1)
