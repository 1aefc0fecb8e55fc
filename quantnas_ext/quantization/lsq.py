"""Learned step size quantization (LSQ): Esser et al., "Learned Step Size Quantization", ICLR 2020."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_CANDIDATE_STEPS = 40
_SMALLEST_STEP = 1e-8


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
            per_element = ratio.clamp(ctx.low, ctx.high).round_().sub_(ratio.mul_(inside))
            step_gradient = per_element.mul_(gradient).sum_to_size(step.shape).mul_(ctx.gradient_scale)
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
        ``round(clamp(x / step, Qn, Qp)) * step``, shape and dtype of ``x``, computed in float32 at least. Gradients to
        ``step`` follow equation 3, gradients to ``x`` equation 5 (nothing flows to clipped values).
    """
    low, high = integer_range(bits, signed=signed)
    elements = elements or x.numel() // step.numel()
    dtype = torch.promote_types(x.dtype, torch.float32)
    return _LSQ.apply(x.to(dtype), step.to(dtype), low, high, 1.0 / math.sqrt(high * elements)).to(x.dtype)


def initial_step(x: Tensor, bits: int, *, signed: bool, per_channel: bool = False) -> Tensor:
    """The step a quantizer starts from: the one of least squared error, ``min_s mean (x - q_s(x))^2``.

    LSQ itself starts from ``2 mean|x| / sqrt(Qp)`` (section 2.1 of the paper). At 8 bits that is several times coarser
    than the error asks for, and a short training does not make up for it. The start of least error is that of LSQ+
    (Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better initialization", CVPR
    Workshops 2020); it is looked for among 40 steps that clip between none and all but a fortieth of the largest value.

    Args:
        x: values to be quantized; channels first where ``per_channel``.
        bits: width of the integers.
        signed: whether the integers are signed.
        per_channel: one step for each element of the first dimension instead of one for the tensor.

    Returns:
        ``[C, 1, 1, ...]`` or ``[]``, float32, without gradient. Where all values are zero the step is tiny, not zero.
        Values that are no finite numbers count as zeros, and negative ones too where the integers are not signed.
    """
    low, high = integer_range(bits, signed=signed)
    x = x.detach().float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    x = x if signed else x.clamp_min(0)
    kept = tuple(range(1, x.dim())) if per_channel else tuple(range(x.dim()))
    largest = x.abs().amax(dim=kept, keepdim=per_channel)
    best, least = (largest / high).clamp_min(_SMALLEST_STEP), torch.full_like(largest, torch.inf)
    for share in torch.linspace(1.0, 1 / _CANDIDATE_STEPS, _CANDIDATE_STEPS).tolist():
        step = (largest * (share / high)).clamp_min(_SMALLEST_STEP)
        error = ((x / step).clamp_(low, high).round_().mul_(step) - x).square_().mean(dim=kept, keepdim=per_channel)
        best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    return best
