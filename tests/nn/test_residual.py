"""ADQ against its formula."""

import torch
from torch import nn

from quantnas_ext.nn import ADQResidual, Residual, residual


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


def test_without_adq_a_residual_adds_and_nothing_else() -> None:
    block = residual(nn.Identity(), 4, adq=False)
    assert isinstance(block, Residual) and not list(block.parameters())
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(block(x), 2 * x)
