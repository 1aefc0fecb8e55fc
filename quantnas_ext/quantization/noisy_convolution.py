"""Convolutions and ReLUs with quantization noise that save no more for the backward pass than without noise."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from quantnas_ext.quantization.noise import add_noise

SHARE = 4
"""Where nothing else needs the gradient of a kernel, that of its noise's step is estimated on 1 / SHARE of a batch."""


class Geometry(NamedTuple):
    """How a convolution moves over its input."""

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1


class Noise(NamedTuple):
    """Noise for one tensor: a scalar step, which may carry a gradient, and unit noise of the tensor's shape."""

    scale: Tensor
    unit: Tensor


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
        x_noise: Tensor | None,
        weight_noise: Tensor | None,
        masked: bool,
        geometry: Geometry,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, factor, x_scale, weight_scale)
        # Views of a buffer that stays as it is until the next phase: kept without being counted as saved tensors.
        ctx.noises, ctx.masked, ctx.geometry = (x_noise, weight_noise), masked, geometry
        ctx.dtype = autocast_dtype(x)
        noisy_x = _noisy_input(x, x_scale, x_noise, ctx)
        _, kernel = _noisy_kernel(weight, factor, weight_scale, ctx)
        if bias is not None:
            bias = (bias if factor is None else bias * factor).to(ctx.dtype)
        if ctx.dtype == x.dtype:  # entering a context takes longer than some convolutions
            return F.conv2d(noisy_x, kernel, bias, *geometry)
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(noisy_x, kernel, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, bias, factor, x_scale, weight_scale = ctx.saved_tensors
        x_noise, weight_noise = ctx.noises
        need = ctx.needs_input_grad
        stride, padding, dilation, groups = ctx.geometry
        exact = need[1] or need[3]
        # What the gradient of the kernel is taken on.
        samples = len(x) if exact else -(-len(x) // SHARE) if need[5] else 0
        noisy_x = _noisy_input(x[:samples], x_scale, None if x_noise is None else x_noise[:samples], ctx)
        noisy_weight, kernel = _noisy_kernel(weight, factor, weight_scale, ctx)
        for_bias = bias is not None and (need[2] or need[3])

        def gradients_of(inputs: Tensor, mask: list[bool]) -> Any:
            return torch.ops.aten.convolution_backward(
                gradient[: len(inputs)],
                inputs,
                kernel,
                [kernel.shape[0]],
                stride,
                padding,
                dilation,
                False,
                [0, 0],
                groups,
                mask,
            )

        if exact:
            x_gradient, kernel_gradient, bias_gradient = gradients_of(noisy_x, [need[0] or need[4], True, for_bias])
        else:
            # The input itself takes the place of the noisy one: its gradient depends on its shape alone.
            x_gradient, kernel_gradient, bias_gradient = gradients_of(
                x.to(ctx.dtype), [need[0] or need[4], False, for_bias]
            )
            if samples:
                kernel_gradient = gradients_of(noisy_x, [False, True, False])[1] * (len(x) / samples)
        results: list[Tensor | None] = [None] * 10
        if need[0]:
            results[0] = x_gradient.to(x.dtype)
        if need[4]:
            unit = x_noise * (x != 0) if ctx.masked else x_noise
            results[4] = _dot(x_gradient, unit)
        if kernel_gradient is not None:
            kernel_gradient = kernel_gradient.to(weight.dtype)
            if need[3]:
                results[3] = _dot(kernel_gradient, noisy_weight).to(factor.dtype)
            if factor is not None:
                kernel_gradient = kernel_gradient * factor.to(weight.dtype)
            results[1] = kernel_gradient if need[1] else None
            if need[5]:
                results[5] = _dot(kernel_gradient, weight_noise)
        if for_bias:
            bias_gradient = bias_gradient.to(bias.dtype)
            if need[3]:
                results[3] = cast(Tensor, results[3]) + _dot(bias_gradient, bias).to(factor.dtype)
            if need[2]:
                results[2] = bias_gradient if factor is None else bias_gradient * factor.to(bias.dtype)
        return tuple(results)


def _noisy_input(x: Tensor, scale: Tensor | None, unit: Tensor | None, ctx: Any) -> Tensor:
    """In the dtype of the computation."""
    if scale is not None and unit is not None:
        x = add_noise(x, scale, unit, masked=ctx.masked)
    return x.to(ctx.dtype)


def _noisy_kernel(weight: Tensor, factor: Tensor | None, scale: Tensor | None, ctx: Any) -> tuple[Tensor, Tensor]:
    """The noisy weight, and the same times the factor in the dtype of the computation."""
    if scale is not None:
        weight = add_noise(weight, scale, ctx.noises[1])
    kernel = weight if factor is None else weight * factor.to(weight.dtype)
    return weight, kernel.to(ctx.dtype)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum of products, a float32 scalar at least."""
    dtype = torch.promote_types(a.dtype, torch.float32)
    order = sorted(range(a.dim()), key=a.stride, reverse=True)  # of memory, where flattening copies nothing
    return torch.dot(a.permute(order).flatten().to(dtype), b.permute(order).flatten().to(dtype))


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
        ``[N, C_out, H', W']``, differentiable in ``x``, ``weight``, ``bias``, ``factor`` and the scales.
    """
    x_scale, x_unit = x_noise or (None, None)
    weight_scale, weight_unit = weight_noise or (None, None)
    output: Tensor = _NoisyConvolution.apply(
        x, weight, bias, factor, x_scale, weight_scale, x_unit, weight_unit, masked, geometry
    )
    return output


class _NoisyReLU(torch.autograd.Function):
    """Keeps where the input is positive, a byte an element, or nothing but the output where noise is masked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, unit: Tensor, masked: bool) -> Tensor:
        positive = x > 0
        output = x.clamp_min(0)
        output.addcmul_(unit * positive if masked else unit, scale.to(x.dtype))
        ctx.save_for_backward(positive)
        ctx.unit, ctx.masked = unit, masked
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        (positive,) = ctx.saved_tensors
        behind = gradient * positive
        scale_gradient = None
        if ctx.needs_input_grad[1]:
            scale_gradient = _dot(behind if ctx.masked else gradient, ctx.unit)
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
    output: Tensor = _NoisyReLU.apply(x, noise.scale, noise.unit, masked)
    return output
