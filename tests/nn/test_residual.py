"""ADQ and AdaDM against their formulas."""

import pytest
import torch
from torch import nn

from quantnas_ext.nn import AdaDMResidual, ADQResidual, Residual, residual


def test_adq_is_the_branch_of_the_normalised_input_rescaled_by_the_samples_deviation() -> None:
    torch.manual_seed(0)
    block = residual(nn.Conv2d(4, 4, 1), 4, adq=True)
    assert isinstance(block, ADQResidual)
    block.shift.data.fill_(0.3)
    x = 5 * torch.randn(3, 4, 6, 7) + 2
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    branch = block.branch((x - mean) / (variance + 1e-5).sqrt())
    expected = torch.stack([1.5 * sample.std() + 0.3 for sample in x])[:, None, None, None] * branch + x
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def test_adadm_rescales_by_a_power_of_the_samples_deviation_which_is_one_at_the_start() -> None:
    torch.manual_seed(0)
    block = residual(nn.Conv2d(4, 4, 1), 4, adq="adadm").eval()
    assert isinstance(block, AdaDMResidual)
    x = 5 * torch.randn(3, 4, 6, 7) + 2
    deviations = torch.stack([sample.std() for sample in x])[:, None, None, None]
    branch = block.branch(block.norm(x))
    torch.testing.assert_close(block(x), deviations * branch + x)
    block.scale.data.fill_(0.7)
    block.shift.data.fill_(0.3)
    torch.testing.assert_close(block(x), deviations**0.7 * torch.tensor(0.3).exp() * branch + x)


@pytest.mark.parametrize("adq", [True, "adadm"])
def test_a_sample_of_one_colour_gives_finite_values_and_gradients(adq: bool | str) -> None:
    block = residual(nn.Conv2d(4, 4, 1), 4, adq=adq)
    x = torch.cat([torch.full((1, 4, 3, 3), 0.25), torch.rand(1, 4, 3, 3)]).requires_grad_()
    y = block(x)
    y.square().sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in block.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    torch.testing.assert_close(y[0], x[0], rtol=0, atol=1e-3)  # no deviation, no branch


def test_without_adq_a_residual_adds_and_nothing_else() -> None:
    block = residual(nn.Identity(), 4, adq=False)
    assert isinstance(block, Residual) and not list(block.parameters())
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(block(x), 2 * x)
