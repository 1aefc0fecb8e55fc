"""Kernels of several convolutions in one, and their noise."""

import torch

from quantnas_ext.quantization.noise.merged_kernels import MergedShape, NoiseCells, merged_kernels


def test_noise_of_a_merged_kernel_has_the_variance_of_independent_noise_of_each_weight() -> None:
    shape = MergedShape((18, 6, 5, 5), 2)  # 12 input channels
    kinds = [  # first channel, channels, groups, window, dilation
        (0, 12, 2, (5, 5), (1, 1)),
        (0, 12, 4, (3, 3), (2, 2)),
        (0, 12, 6, (1, 1), (1, 1)),
        (12, 6, 2, (3, 1), (1, 1)),
    ]
    weights = [torch.ones(channels, 12 // groups, *window) for _, channels, groups, window, _ in kinds]
    placements = [
        shape.place(start, weight, dilation, groups)
        for (start, _, groups, _, dilation), weight in zip(kinds, weights, strict=True)
    ]
    scales = torch.tensor([0.5, 0.25, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    weights = [weight.double() for weight in weights]
    alone = torch.stack(merged_kernels(shape, placements, weights, torch.eye(4, dtype=torch.float64)))
    expected = (scales.square() @ alone.flatten(1)).view(alone.shape[1:])
    kernel, unit = torch.randn(shape.size, dtype=torch.float64), torch.ones(shape.size, dtype=torch.float64)
    cells = NoiseCells.of(shape, placements, kernel)
    noise = cells.add_noise(kernel, unit, scales) - kernel
    torch.testing.assert_close(noise.square(), expected)
    assert cells.blocks == 6 and (expected == 0).any() and len(expected.unique()) > 4
    assert torch.autograd.gradcheck(lambda k, s: cells.add_noise(k, unit, s), (kernel.requires_grad_(), scales))

    for dtype in (torch.float16, torch.bfloat16):  # the squares of these steps are zero in float16
        kernel, small = torch.zeros(shape.size, dtype=dtype), (1e-4 * scales).to(dtype).detach().requires_grad_()
        noise = NoiseCells.of(shape, placements, kernel).add_noise(kernel, unit.to(dtype), small)
        torch.testing.assert_close(noise.double(), 1e-4 * expected.sqrt().detach(), rtol=0.02, atol=1e-12)
        (gradient,) = torch.autograd.grad(noise.float().sum(), small)
        assert gradient.isfinite().all() and (gradient > 0).all()
