"""ReLUs with quantization noise, for several convolutions to read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quantnas_ext.quantization.noise.additive import add_noise, as_factor, dot, first_order_only, of_dtype
from quantnas_ext.quantization.noise.convolution import Noise


class _NoisyReLU(torch.autograd.Function):
    """Keeps where the input is positive, a byte an element, or nothing but the output where noise is masked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, noise: Noise, masked: bool) -> Tensor:
        positive = as_factor(x > 0)
        output = x.clamp_min(0)
        ctx.dtype = x.dtype
        ctx.noise, ctx.masked = noise.absolute(output), masked
        output = add_noise(output, ctx.noise.step, noise.unit, masked=masked, in_place=True)
        ctx.save_for_backward(positive)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        first_order_only()
        (gradient,) = gradients
        (positive,) = ctx.saved_tensors
        behind = of_dtype(gradient * positive, ctx.dtype)
        scale_gradient = None
        if ctx.needs_input_grad[1]:
            scale_gradient = ctx.noise.per_scale(dot(gradient * positive if ctx.masked else gradient, ctx.noise.unit))
        return behind, scale_gradient, None, None


def noisy_relu(x: Tensor, noise: Noise, *, masked: bool = False) -> Tensor:
    """``relu(x) + D e`` in one function, for several convolutions to read.

    Args:
        x: any shape.
        noise: its step and unit noise.
        masked: no noise where the ReLU gives zero.

    Returns:
        Shape and dtype of ``x``, or float32 where that has fewer digits, differentiable in ``x`` and the step, once.
    """
    output: Tensor = _NoisyReLU.apply(x, noise.scale, noise, masked)
    return output
