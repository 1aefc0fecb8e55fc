"""Learned step size quantization (LSQ): Esser et al., "Learned Step Size Quantization", ICLR 2020."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def integer_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """Smallest and largest integer of a ``bits``-wide number: ``-2^(b-1) .. 2^(b-1)-1`` or ``0 .. 2^b - 1``."""
    if signed:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


class _LSQ(torch.autograd.Function):
    """``round(clamp(x / s, low, high)) * s`` with the gradients of LSQ's equations 3 and 5."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int, gradient_scale: float) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.low, ctx.high, ctx.gradient_scale = low, high, gradient_scale
        return (x / step).clamp_(low, high).round_().mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, step = ctx.saved_tensors
        ratio = x / step
        # Equation 3 counts the end points themselves as clipped.
        inside = (ratio > ctx.low) & (ratio < ctx.high)
        x_gradient = gradient * inside if ctx.needs_input_grad[0] else None
        step_gradient = None
        if ctx.needs_input_grad[1]:
            clamped = ratio.clamp(ctx.low, ctx.high)
            per_element = clamped.round() - torch.where(inside, ratio, 0.0)
            step_gradient = (gradient * per_element).sum_to_size(step.shape).mul_(ctx.gradient_scale)
        return x_gradient, step_gradient, None, None, None


def lsq_quantize(x: Tensor, step: Tensor, bits: int, *, signed: bool, elements: int | None = None) -> Tensor:
    """Quantize to the grid of a learned step and come back to real numbers ("fake quantization").

    Args:
        x: any shape, real units.
        step: positive, broadcastable to ``x`` (one element: per tensor; ``[C, 1, ...]``: per output channel), in the
            units of ``x``.
        bits: width of the integers.
        signed: whether the integers are signed (weights, residual sums) or not (after a ReLU).
        elements: how many values share a step; the step's gradient is scaled by ``1 / sqrt(Qp * elements)`` (section
            2.2 of the paper). ``None`` means ``x.numel() / step.numel()``.

    Returns:
        ``round(clamp(x / step, Qn, Qp)) * step``, float32, shape of ``x``. Gradients to ``step`` follow equation 3,
        gradients to ``x`` equation 5 (nothing flows to clipped values).
    """
    low, high = integer_range(bits, signed=signed)
    elements = elements or x.numel() // step.numel()
    return _LSQ.apply(x.float(), step.float(), low, high, 1.0 / math.sqrt(high * elements))


def initial_step(x: Tensor, bits: int, *, signed: bool, per_channel: bool = False) -> Tensor:
    """The step LSQ starts from, ``2 mean|x| / sqrt(Qp)`` (section 2.1 of the paper).

    Args:
        x: values to be quantized; channels first where ``per_channel``.
        bits: width of the integers.
        signed: whether the integers are signed.
        per_channel: one step for each element of the first dimension instead of one for the tensor.

    Returns:
        ``[C, 1, 1, ...]`` or ``[]``, float32, without gradient. Where all values are zero the step is tiny, not zero.
    """
    _, high = integer_range(bits, signed=signed)
    magnitude = x.detach().float().abs()
    mean = magnitude.mean(dim=tuple(range(1, x.dim())), keepdim=True) if per_channel else magnitude.mean()
    return (2.0 * mean / math.sqrt(high)).clamp_min(1e-8)
