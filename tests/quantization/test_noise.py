"""Quantization noise against its formulas."""

import pytest
import torch

from quantnas_ext.quantization import mixture_noise_scale, value_range
from quantnas_ext.quantization.noise.additive import NOISE_VARIANCE, add_noise, relative_steps, unit_noise_


def noised(x: torch.Tensor, scale: torch.Tensor, distribution: str = "uniform") -> torch.Tensor:
    return add_noise(x, scale, unit_noise_(torch.empty_like(x), distribution))  # type: ignore[arg-type]


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_noise_has_the_mean_and_variance_of_the_formula(bits: int, distribution: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(400_000) * 6 - 2
    step = (x.max() - x.min()) / (2**bits - 1)
    scale = value_range(x) * relative_steps([bits])[0]
    noise = noised(x, scale, distribution) - x
    variance = NOISE_VARIANCE[distribution] * step**2
    assert noise.mean().abs() < 4 * (variance / x.numel()).sqrt()
    assert noise.var().item() == pytest.approx(variance.item(), rel=0.02)
    if distribution == "uniform":
        assert noise.abs().max() <= step / 2 * 1.001


def test_uniform_noise_of_a_mixture_has_the_variance_of_separately_noised_tensors() -> None:
    torch.manual_seed(0)
    x, p, bits = torch.randn(300_000), torch.tensor([0.2, 0.5, 0.3]), [2, 4, 8]
    steps = value_range(x) * relative_steps(bits)
    separate = sum(w * noised(x, step) for w, step in zip(p, steps, strict=True)) - x
    together = noised(x, mixture_noise_scale(p, steps)) - x
    assert together.var().item() == pytest.approx(separate.var().item(), rel=0.02)
    power = noised(x, mixture_noise_scale(p, steps, "power")) - x
    assert power.var().item() == pytest.approx((p * steps.square()).sum().item() / 12, rel=0.02)


@pytest.mark.parametrize("mixture", ["rss", "power"])
def test_scale_is_differentiable_in_the_probabilities(mixture: str) -> None:
    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    steps = relative_steps([2, 4, 8]).double()

    def closed_form(p: torch.Tensor) -> torch.Tensor:
        return ((p**2 if mixture == "rss" else p) @ steps**2) ** 0.5

    (found,) = torch.autograd.grad(mixture_noise_scale(p, steps, mixture), p)
    (expected,) = torch.autograd.grad(closed_form(p), p)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("mixture", ["rss", "power"])
def test_all_weight_on_32_bits_is_silent_and_its_gradient_is_zero_not_nan(mixture: str) -> None:
    p = torch.tensor([0.0, 1.0], requires_grad=True)
    scale = mixture_noise_scale(p, relative_steps([4, 32]), mixture)
    x = torch.randn(100)
    assert torch.equal(noised(x, scale), x)
    (gradient,) = torch.autograd.grad(scale, p)
    assert torch.equal(gradient, torch.zeros(2))
