"""Convolutions and ReLUs with quantization noise that save no more for the backward pass than without noise."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from quantnas_ext.quantization.noise import add_noise, flattened

SHARE = 4
"""Where nothing else needs the gradient of a kernel, that of its noise's step is estimated on 1 / SHARE of a batch."""

STRIDE = 3
"""There, on every STRIDE-th row and column of the output; prime to the factors of pixel shuffle 2 and 4."""


class Geometry(NamedTuple):
    """How a convolution moves over its input."""

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1


class Noise(NamedTuple):
    """Noise for one tensor.

    Attributes:
        scale: scalar step, which may carry a gradient.
        unit: unit noise of the tensor's shape.
        span: scalar without gradient that the step is in units of; None for 1.
    """

    scale: Tensor
    unit: Tensor
    span: Tensor | None = None

    @property
    def step(self) -> Tensor:
        """The step in the units of the tensor."""
        return self.scale if self.span is None else self.scale * self.span


def autocast_dtype(x: Tensor) -> torch.dtype:
    """What autocast, where it is on, computes convolutions of ``x`` in; else the dtype of ``x``."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype == torch.float32:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


class _NoisyConvolution(torch.autograd.Function):
    """Keeps input and weight as they are, and makes the noisy ones anew in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        factor: Tensor | None,
        x_scale: Tensor | None,
        weight_scale: Tensor | None,
        x_noise: Noise | None,
        weight_noise: Noise | None,
        masked: bool,
        geometry: Geometry,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, factor)
        # Views of a buffer that stays as it is until the next phase: kept without being counted as saved tensors.
        ctx.noises = x_noise, weight_noise
        ctx.masked, ctx.geometry, ctx.dtype = masked, geometry, autocast_dtype(x)
        noisy_x = _noisy_input(x, ctx)
        _, kernel = _noisy_kernel(weight, factor, ctx)
        if bias is not None:
            bias = (bias if factor is None else bias * factor).to(ctx.dtype)
        return _convolve(noisy_x, kernel, bias, geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, bias, factor = ctx.saved_tensors
        x_noise, weight_noise = ctx.noises
        need = ctx.needs_input_grad
        exact = need[1] or need[3]
        noisy_weight, kernel = _noisy_kernel(weight, factor, ctx)
        for_bias = bias is not None and (need[2] or need[3])
        # Without a gradient of the kernel the input takes the place of the noisy one: only its shape matters.
        inputs = _noisy_input(x, ctx) if exact else _of_dtype(x, ctx.dtype)
        mask = [need[0] or need[4], exact, for_bias]
        x_gradient, kernel_gradient, bias_gradient = torch.ops.aten.convolution_backward(
            gradient, inputs, kernel, [len(kernel)], *ctx.geometry[:3], False, [0, 0], ctx.geometry.groups, mask
        )
        results: list[Tensor | None] = [None] * 10
        if need[0]:
            results[0] = _of_dtype(x_gradient, x.dtype)
        if need[4]:
            unit = x_noise.unit * (x != 0) if ctx.masked else x_noise.unit
            results[4] = _per_scale(_dot(x_gradient, unit), x_noise)
        if exact:
            kernel_gradient = _of_dtype(kernel_gradient, weight.dtype)
            if need[3]:
                results[3] = _dot(kernel_gradient, noisy_weight).to(factor.dtype)
            if factor is not None:
                kernel_gradient = kernel_gradient * _of_dtype(factor, weight.dtype)
            results[1] = kernel_gradient if need[1] else None
            if need[5]:
                results[5] = _per_scale(_dot(kernel_gradient, weight_noise.unit), weight_noise)
        elif need[5]:
            derivative = _sampled_derivative(x, gradient, ctx)
            results[5] = _per_scale(derivative if factor is None else derivative * factor, weight_noise)
        if for_bias:
            bias_gradient = _of_dtype(bias_gradient, bias.dtype)
            if need[3]:
                results[3] = cast(Tensor, results[3]) + _dot(bias_gradient, bias).to(factor.dtype)
            if need[2]:
                results[2] = bias_gradient if factor is None else bias_gradient * factor.to(bias.dtype)
        return tuple(results)


def _per_scale(derivative: Tensor, noise: Noise) -> Tensor:
    """The derivative by the step as one by the scale."""
    return derivative if noise.span is None else derivative * noise.span


def _of_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x.to(dtype)``, at less than the cost of that call where nothing is to be done."""
    return x if x.dtype == dtype else x.to(dtype)


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """In the dtype of ``x``."""
    if not torch.is_autocast_enabled(x.device.type):  # entering a context takes longer than some convolutions
        return F.conv2d(x, kernel, bias, *geometry)
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, kernel, bias, *geometry)


def _noisy_input(x: Tensor, ctx: Any, samples: int | None = None) -> Tensor:
    """In the dtype of the computation; only the first samples where a number of them is given."""
    noise = ctx.noises[0]
    x = x[:samples]
    if noise is not None:
        x = add_noise(x, noise.step, noise.unit[:samples], masked=ctx.masked)
    return _of_dtype(x, ctx.dtype)


def _noisy_kernel(weight: Tensor, factor: Tensor | None, ctx: Any) -> tuple[Tensor, Tensor]:
    """The noisy weight, and the same times the factor in the dtype of the computation."""
    noise = ctx.noises[1]
    if noise is not None:
        weight = add_noise(weight, noise.step, noise.unit)
    kernel = weight if factor is None else weight * _of_dtype(factor, weight.dtype)
    return weight, _of_dtype(kernel, ctx.dtype)


def _sampled_derivative(x: Tensor, gradient: Tensor, ctx: Any) -> Tensor:
    """Derivative by the step of the weight's noise, estimated on a part of the samples and positions of the output."""
    samples = -(-len(x) // SHARE)
    geometry = ctx.geometry._replace(stride=tuple(STRIDE * step for step in ctx.geometry.stride))
    kernel = _of_dtype(ctx.noises[1].unit, ctx.dtype)
    output = _convolve(_noisy_input(x, ctx, samples), kernel, None, geometry)
    part = gradient[:samples, :, ::STRIDE, ::STRIDE]
    return _dot(output, part) * (gradient.numel() / part.numel())


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum of products, a float32 scalar at least."""
    dtype = torch.promote_types(a.dtype, torch.float32)
    a, b = flattened(a, b)
    return torch.dot(_of_dtype(a, dtype), _of_dtype(b, dtype))


def noisy_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    *,
    x_noise: Noise | None = None,
    weight_noise: Noise | None = None,
    factor: Tensor | None = None,
    masked: bool = False,
) -> Tensor:
    """``factor * conv2d(x + D_x e_x, weight + D_w e_w, bias)``.

    The noisy tensors are not kept: the backward pass makes them again out of ``x``, which a ReLU in front has saved
    anyway, so that noise takes no memory. Computes in the dtype of autocast where that is on.

    Args:
        x: ``[N, C_in, H, W]``.
        weight: ``[C_out, C_in / groups, k_h, k_w]``.
        bias: ``[C_out]`` or None.
        geometry: stride, padding, dilation and groups.
        x_noise, weight_noise: noise for either; None for none.
        factor: a scalar, such as a candidate's probability; on a kernel it costs less than on an output.
        masked: leave zeros of ``x`` as they are.

    Returns:
        ``[N, C_out, H', W']``, differentiable in ``x``, ``weight``, ``bias``, ``factor`` and the scales. Where neither
        weight nor factor need a gradient, that of the weight noise's scale is estimated on a part of the output.
    """
    output: Tensor = _NoisyConvolution.apply(
        x,
        weight,
        bias,
        factor,
        None if x_noise is None else x_noise.scale,
        None if weight_noise is None else weight_noise.scale,
        x_noise,
        weight_noise,
        masked,
        geometry,
    )
    return output


class _NoisyReLU(torch.autograd.Function):
    """Keeps where the input is positive, a byte an element, or nothing but the output where noise is masked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, noise: Noise, masked: bool) -> Tensor:
        ctx.noise, ctx.masked = noise, masked
        positive = x > 0
        output = x.clamp_min(0)
        unit = noise.unit * positive if masked else noise.unit
        output.addcmul_(unit, _of_dtype(noise.step, x.dtype))
        ctx.save_for_backward(positive)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        (positive,) = ctx.saved_tensors
        behind = gradient * positive
        scale_gradient = None
        if ctx.needs_input_grad[1]:
            derivative = _dot(behind if ctx.masked else gradient, ctx.noise.unit)
            scale_gradient = _per_scale(derivative, ctx.noise)
        return behind, scale_gradient, None, None


def noisy_relu(x: Tensor, noise: Noise, *, masked: bool = False) -> Tensor:
    """``relu(x) + D e`` in one function, for several convolutions to read.

    Args:
        x: any shape.
        noise: its step and unit noise.
        masked: no noise where the ReLU gives zero.

    Returns:
        Shape and dtype of ``x``, differentiable in ``x`` and the step.
    """
    output: Tensor = _NoisyReLU.apply(x, noise.scale, noise, masked)
    return output
