"""Convolutions and ReLUs with quantization noise that save hardly more for the backward pass than without noise."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from quantnas_ext.quantization.noise.additive import (
    add_noise,
    as_factor,
    first_order_only,
    flattened,
    in_two_parts,
    value_range,
)

SHARE = 4
"""Where nothing else needs the gradient of a tensor, that of its noise's step is estimated on 1 / SHARE of a batch."""

KEPT = 2**18
"""Noisy inputs of up to so many elements are kept for the backward pass, if it needs them and one layer reads them."""


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
        of_range: whether the step is in units of the range of the tensor instead, which is not known yet.
    """

    scale: Tensor
    unit: Tensor
    span: Tensor | None = None
    of_range: bool = False

    def absolute(self, x: Tensor) -> _AbsoluteNoise:
        """For the tensor that gets it."""
        span = value_range(x) if self.of_range else self.span
        return _AbsoluteNoise(self.scale if span is None else self.scale * span, self.unit, span)


class _AbsoluteNoise(NamedTuple):
    """Noise with its step in the units of the tensor.

    Attributes:
        step, unit: whose product is added.
        span: what the step is a multiple of; None for 1.
    """

    step: Tensor
    unit: Tensor
    span: Tensor | None

    def of_first(self, samples: int) -> _AbsoluteNoise:
        """The same for the first samples alone."""
        return self._replace(unit=self.unit[:samples])

    def per_scale(self, derivative: Tensor) -> Tensor:
        """A derivative by the step as one by the scale."""
        return derivative if self.span is None else derivative * self.span


def autocast_dtype(x: Tensor) -> torch.dtype:
    """What autocast, where it is on, computes convolutions of ``x`` in; else the dtype of ``x``."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype == torch.float32:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


class _NoisyConvolution(torch.autograd.Function):
    """Keeps the noisy kernel; a noisy input only where it is small, else it is made anew in the backward pass."""

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
        relu: bool,
        masked: bool,
        estimated: bool,
        noisy: bool,
        geometry: Geometry,
    ) -> Tensor:
        ctx.relu, ctx.masked, ctx.estimated = relu, masked, estimated
        ctx.geometry, ctx.dtype = geometry, autocast_dtype(weight if noisy else x)
        low = None
        # Their units are views of a buffer that stays as it is until the next phase: kept, but not as saved tensors.
        seen = x.clamp_min(0) if relu else x
        ctx.x_noise = None if x_noise is None else x_noise.absolute(seen)
        ctx.weight_noise = None if weight_noise is None else weight_noise.absolute(weight)
        kernel = _noisy_weight(weight, ctx)
        kernel = _of_dtype(kernel if factor is None else kernel * _of_dtype(factor, weight.dtype), ctx.dtype)
        noisy_x = _with_noise(seen, ctx.x_noise, ctx)
        if noisy_x.dtype != ctx.dtype:
            if noisy or x_noise is not None:
                noisy_x, low = in_two_parts(noisy_x, ctx.dtype)
            else:
                noisy_x = noisy_x.to(ctx.dtype)
        need = ctx.needs_input_grad
        kept = noisy_x if relu and (need[1] or need[3]) and x.numel() <= KEPT else None
        ctx.save_for_backward(x, weight, bias, factor, kernel, kept)
        if bias is not None:
            bias = _of_dtype(bias if factor is None else bias * factor, ctx.dtype)
        if low is None:
            return _convolve(noisy_x, kernel, bias, geometry)
        return _convolve(beside(noisy_x, low, geometry.groups), torch.cat([kernel, kernel], dim=1), bias, geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        first_order_only()
        (gradient,) = gradients
        x, weight, bias, factor, kernel, noisy_x = ctx.saved_tensors
        x_noise, weight_noise = ctx.x_noise, ctx.weight_noise
        need = ctx.needs_input_grad
        for_bias = bias is not None and (need[2] or need[3])
        exact = need[1] or need[3]
        for_input = need[0] or need[4]
        # For the scale of noise alone a part of the batch will do.
        part_for_input, part_for_kernel = for_input and (ctx.estimated or not need[0]), need[5] and not exact
        if noisy_x is None:
            # Without a gradient of the kernel the input takes the place of the noisy one: only its shape matters.
            noisy_x = _of_dtype(_noisy_input(x, x_noise, ctx) if exact else x, ctx.dtype)
        x_gradient, kernel_gradient, bias_gradient = _gradients(
            ctx, gradient, noisy_x, kernel, [for_input and not part_for_input, exact, for_bias]
        )
        if part_for_input or part_for_kernel:
            samples = -(-len(x) // SHARE)
            part = noisy_x[:samples]
            if part_for_kernel:
                noise = None if x_noise is None else x_noise.of_first(samples)
                part = _of_dtype(_noisy_input(x[:samples], noise, ctx), ctx.dtype)
            of_part = _gradients(ctx, gradient[:samples], part, kernel, [part_for_input, part_for_kernel, False])
            if part_for_input:
                x_gradient = torch.zeros_like(noisy_x)
                torch.mul(of_part[0], len(x) / samples, out=x_gradient[:samples])
            if part_for_kernel:
                kernel_gradient = of_part[1] * (len(x) / samples)
        results: list[Tensor | None] = [None] * 13
        if need[4]:
            unit = x_noise.unit
            if ctx.masked:
                unit = unit * as_factor(x > 0 if ctx.relu else x != 0)
            results[4] = x_noise.per_scale(_dot(x_gradient, unit))
        if need[0]:
            results[0] = x_gradient = _of_dtype(x_gradient, x.dtype)
            if ctx.relu:
                torch.ops.aten.threshold_backward.grad_input(x_gradient, x, 0, grad_input=x_gradient)
        if exact or part_for_kernel:
            kernel_gradient = _of_dtype(kernel_gradient, weight.dtype)
            if need[3]:
                results[3] = _dot(kernel_gradient, _noisy_weight(weight, ctx)).to(factor.dtype)
            if factor is not None:
                kernel_gradient = kernel_gradient * _of_dtype(factor, weight.dtype)
            results[1] = kernel_gradient if need[1] else None
            if need[5]:
                results[5] = weight_noise.per_scale(_dot(kernel_gradient, weight_noise.unit))
        if for_bias:
            bias_gradient = _of_dtype(bias_gradient, bias.dtype)
            if need[3]:
                results[3] = cast(Tensor, results[3]) + _dot(bias_gradient, bias).to(factor.dtype)
            if need[2]:
                results[2] = bias_gradient if factor is None else bias_gradient * factor.to(bias.dtype)
        return tuple(results)


def _gradients(ctx: Any, gradient: Tensor, x: Tensor, kernel: Tensor, need: list[bool]) -> tuple[Tensor, ...]:
    """Those of input, kernel and bias that are needed."""
    stride, padding, dilation, groups = ctx.geometry
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        gradient, x, kernel, [kernel.shape[0]], stride, padding, dilation, False, [0, 0], groups, need
    )
    return gradients


def _of_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x.to(dtype)``, at less than the cost of that call where nothing is to be done."""
    return x if x.dtype == dtype else x.to(dtype)


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """In the dtype of ``x``."""
    if not torch.is_autocast_enabled(x.device.type):  # entering a context takes longer than some convolutions
        return F.conv2d(x, kernel, bias, *geometry)
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, kernel, bias, *geometry)


def beside(high: Tensor, low: Tensor, groups: int) -> Tensor:
    """Both parts of an input as its channels, so that one convolution sums them before it rounds its output."""
    axis = high.dim() - 3
    if groups == 1:
        return torch.cat([high, low], dim=axis)  # which keeps channels last
    parts = [part.unflatten(axis, (groups, -1)) for part in (high, low)]
    return torch.stack(parts, dim=axis + 1).flatten(axis, axis + 2)


def _noisy_input(x: Tensor, noise: _AbsoluteNoise | None, ctx: Any) -> Tensor:
    """What the kernel met, made anew."""
    return _with_noise(x.clamp_min(0) if ctx.relu else x, noise, ctx)


def _with_noise(seen: Tensor, noise: _AbsoluteNoise | None, ctx: Any) -> Tensor:
    """The input behind its ReLU, if there is one, with noise, in float32 at least where it has some."""
    if noise is None:
        return seen
    return add_noise(seen, noise.step, noise.unit, masked=ctx.masked, in_place=ctx.relu)


def _noisy_weight(weight: Tensor, ctx: Any) -> Tensor:
    noise = ctx.weight_noise
    return weight if noise is None else _of_dtype(add_noise(weight, noise.step, noise.unit), weight.dtype)


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
    relu: bool = False,
    masked: bool = False,
    estimated: bool = False,
    noisy: bool = False,
) -> Tensor:
    """``factor * conv2d(x + D_x e_x, weight + D_w e_w, bias)``, or with ``relu(x)`` in place of ``x``.

    A noisy input is kept for the backward pass only where it is small and no other layer reads it. Else it is made
    again out of ``x``, which a ReLU in front has saved anyway, so that noise takes the memory of the kernel alone.
    Computes in the dtype of autocast where that is on. Where that or the input has fewer digits than float32, a noisy
    input is convolved in two parts, as small noise would vanish in it (``in_two_parts``).

    Args:
        x: ``[N, C_in, H, W]``.
        weight: ``[C_out, C_in / groups, k_h, k_w]``.
        bias: ``[C_out]`` or None.
        geometry: stride, padding, dilation and groups.
        x_noise, weight_noise: noise for either; None for none.
        factor: a scalar, such as a candidate's probability; on a kernel it costs less than on an output.
        relu: whether a ReLU comes first.
        masked: leave zeros of ``x``, or behind the ReLU, as they are.
        estimated: whether the gradient of ``x`` serves nothing but the scale of noise that it has already, for which an
            estimate from a part of the batch will do.
        noisy: whether ``x`` has noise already.

    Returns:
        ``[N, C_out, H', W']``, differentiable in ``x``, ``weight``, ``bias``, ``factor`` and the scales. Where nothing
        else needs the gradient of weight and factor, or of the input, that of their noise's scale is estimated on the
        first samples, without bias where samples come in random order.
    """
    estimated = estimated and x.requires_grad
    narrow = noisy and autocast_dtype(weight) != x.dtype
    learned = weight_noise is not None and weight_noise.scale.requires_grad
    if not (relu or estimated or narrow or learned) and x_noise is None:
        # Nothing that the function would do better than autograd.
        if weight_noise is not None:
            noise = weight_noise.absolute(weight)
            weight = _of_dtype(add_noise(weight, noise.step, noise.unit), weight.dtype)
        if factor is not None:
            weight = weight * _of_dtype(factor, weight.dtype)
            bias = None if bias is None else bias * _of_dtype(factor, bias.dtype)
        return F.conv2d(x, weight, bias, *geometry)
    x_scale = None if x_noise is None else x_noise.scale
    weight_scale = None if weight_noise is None else weight_noise.scale
    output: Tensor = _NoisyConvolution.apply(
        x, weight, bias, factor, x_scale, weight_scale, x_noise, weight_noise, relu, masked, estimated, noisy, geometry
    )
    return output


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
        behind = _of_dtype(gradient * positive, ctx.dtype)
        scale_gradient = None
        if ctx.needs_input_grad[1]:
            scale_gradient = ctx.noise.per_scale(_dot(gradient * positive if ctx.masked else gradient, ctx.noise.unit))
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
