"""Several convolutions of one input as one: their kernels, weighted, in one larger kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """Where the kernel of one convolution stands in a merged kernel.

    Attributes:
        start: first of its output channels there.
        channels: number of its output channels.
        window: rows and columns it takes, centred.
        groups: of the convolution, a multiple of those of the merged one.
    """

    start: int
    channels: int
    window: tuple[slice, slice]
    groups: int


@dataclass(frozen=True)
class MergedShape:
    """Shape ``[C_out, C_in / groups, k, l]`` of a merged kernel and its groups."""

    size: tuple[int, int, int, int]
    groups: int

    def place(self, start: int, weight: Tensor, dilation: tuple[int, ...], groups: int) -> Placement:
        """Where a kernel goes whose first output channel is ``start``."""
        windows = []
        for whole, size, step in zip(self.size[2:], weight.shape[2:], dilation, strict=True):
            extent = step * (size - 1) + 1
            first = (whole - extent) // 2
            windows.append(slice(first, first + extent, step))
        return Placement(start, weight.shape[0], (windows[0], windows[1]), groups)


def kernel_view(merged: Tensor, shape: MergedShape, placement: Placement) -> Tensor:
    """The entries of a merged kernel that one convolution's kernel stands for, as a view.

    Returns:
        The convolution's weight as ``by_groups`` has it.
    """
    rows, columns = placement.window
    view = merged[placement.start : placement.start + placement.channels, :, rows, columns]
    many = placement.groups // shape.groups
    view = view.unflatten(0, (shape.groups, many, -1)).unflatten(3, (many, -1))
    return view.diagonal(dim1=1, dim2=3).movedim(-1, 1)


def by_groups(weight: Tensor, shape: MergedShape, placement: Placement) -> Tensor:
    """A weight as ``[groups, m, C_out / (groups m), C_in / (groups m), k, l]``, a view.

    Args:
        weight: of a convolution that has m groups for each group of the merged kernel: a block diagonal there.
        shape: of the merged kernel.
        placement: of the convolution in it.
    """
    return weight.unflatten(0, (shape.groups, placement.groups // shape.groups, -1))


class _MergedKernels(torch.autograd.Function):
    """Both kernels at once, without keeping what is between weights and kernels."""

    @staticmethod
    def forward(
        ctx: Any,
        shape: MergedShape,
        placements: Sequence[Placement],
        units: Sequence[Tensor] | None,
        factors: Tensor,
        second_factors: Tensor | None,
        scales: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(factors, second_factors, scales, *weights)
        ctx.shape, ctx.placements, ctx.units = shape, placements, units
        first = weights[0].new_zeros(shape.size)
        second = None if second_factors is None else torch.zeros_like(first)
        for index, placement in enumerate(placements):
            weight = by_groups(_noisy(weights[index], scales, units, index), shape, placement)
            kernel_view(first, shape, placement).addcmul_(weight, factors[index].to(weight.dtype))
            if second is not None and second_factors is not None:
                kernel_view(second, shape, placement).addcmul_(weight, second_factors[index].to(weight.dtype))
        return first, second

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        first, second = gradients
        shape = ctx.shape
        factors, second_factors, scales, *weights = ctx.saved_tensors
        _, _, _, need_factors, need_second, need_scales, *need_weights = ctx.needs_input_grad
        for_factors: list[Tensor] = []
        for_second: list[Tensor] = []
        for_scales: list[Tensor] = []
        for_weights: list[Tensor | None] = []
        for index, placement in enumerate(ctx.placements):
            of_first = kernel_view(first, shape, placement)
            of_second = None if second is None else kernel_view(second, shape, placement)
            if need_factors or need_second:
                noisy = _noisy(weights[index], scales, ctx.units, index)
                weight = by_groups(noisy, shape, placement)
                if need_factors:
                    for_factors.append((of_first * weight).sum())
                if need_second and of_second is not None:
                    for_second.append((of_second * weight).sum())
            gradient = None
            if need_weights[index] or need_scales:
                gradient = of_first * factors[index].to(first.dtype)
                if of_second is not None:
                    gradient.addcmul_(of_second, second_factors[index].to(first.dtype))
            if need_scales and gradient is not None:
                for_scales.append((gradient * by_groups(ctx.units[index], shape, placement)).sum())
            for_weights.append(gradient.flatten(0, 2) if gradient is not None and need_weights[index] else None)
        return (
            None,
            None,
            None,
            torch.stack(for_factors).to(factors.dtype) if for_factors else None,
            torch.stack(for_second).to(second_factors.dtype) if for_second else None,
            torch.stack(for_scales).to(scales.dtype) if for_scales else None,
            *for_weights,
        )


def _noisy(weight: Tensor, scales: Tensor | None, units: Sequence[Tensor] | None, index: int) -> Tensor:
    """A weight with its noise."""
    if scales is None or units is None:
        return weight
    return torch.addcmul(weight, units[index], scales[index].to(weight.dtype))


def merged_kernels(
    shape: MergedShape,
    placements: Sequence[Placement],
    weights: Sequence[Tensor],
    factors: Tensor,
    *,
    second_factors: Tensor | None = None,
    scales: Tensor | None = None,
    units: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """``sum_k factor_k (W_k + scale_k e_k)``, every kernel padded with zeros to the merged shape.

    Convolution is linear: ``sum_k p_k conv(x, W_k) = conv(x, sum_k p_k W_k)``.

    Args:
        shape: of the merged kernel.
        placements: where every weight goes.
        weights: ``[C_out_k, C_in / groups_k, ...]`` each.
        factors: ``[K]``.
        second_factors: ``[K]`` for a second kernel of the same weights and noise; None for none.
        scales: ``[K]`` steps of the weights' noise; None for no noise.
        units: unit noise, shape of each weight; with ``scales``.

    Returns:
        The kernel and the second one or None, differentiable in weights, factors and scales.
    """
    first, second = _MergedKernels.apply(shape, placements, units, factors, second_factors, scales, *weights)
    return first, second
