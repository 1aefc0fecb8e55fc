"""Several convolutions of one input as one: their kernels, weighted, in one larger kernel."""

from __future__ import annotations

import functools
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
        window: first, end and step of the rows and of the columns it takes, centred.
        groups: of the convolution, a multiple of those of the merged one.
    """

    start: int
    channels: int
    window: tuple[tuple[int, int, int], ...]
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
            windows.append((first, first + extent, step))
        return Placement(start, weight.shape[0], tuple(windows), groups)


@functools.cache
def _strides(shape: MergedShape, placement: Placement) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Size, strides and offset of the entries of a placement in a contiguous merged kernel."""
    rows, columns = (slice(*window) for window in placement.window)
    merged = torch.empty(shape.size, device="meta")
    view = merged[placement.start : placement.start + placement.channels, :, rows, columns]
    many = placement.groups // shape.groups
    view = view.unflatten(0, (shape.groups, many, -1)).unflatten(3, (many, -1))
    view = view.diagonal(dim1=1, dim2=3).movedim(-1, 1)
    return tuple(view.shape), view.stride(), int(view.storage_offset())


def kernel_view(merged: Tensor, shape: MergedShape, placement: Placement) -> Tensor:
    """The entries of merged kernels that one convolution's kernel stands for, as a view.

    Args:
        merged: ``[kernels, *shape.size]``, contiguous.
        shape: of each kernel.
        placement: of the convolution in them.

    Returns:
        ``[kernels, ...]``: for each the convolution's weight as ``by_groups`` has it.
    """
    size, strides, offset = _strides(shape, placement)
    return merged.as_strided((len(merged), *size), (merged.stride(0), *strides), merged.storage_offset() + offset)


def by_groups(weight: Tensor, shape: MergedShape, placement: Placement) -> Tensor:
    """A weight as ``[groups, m, C_out / (groups m), C_in / (groups m), k, l]``, a view.

    Args:
        weight: of a convolution that has m groups for each group of the merged kernel: a block diagonal there.
        shape: of the merged kernel.
        placement: of the convolution in it.
    """
    return weight.unflatten(0, (shape.groups, placement.groups // shape.groups, -1))


class _MergedKernels(torch.autograd.Function):
    """All kernels at once, without keeping what is between weights and kernels."""

    @staticmethod
    def forward(
        ctx: Any,
        shape: MergedShape,
        placements: Sequence[Placement],
        units: Sequence[Tensor] | None,
        factors: Tensor,
        scales: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(factors, scales, *weights)
        ctx.shape, ctx.placements, ctx.units = shape, placements, units
        merged = weights[0].new_zeros((len(factors), *shape.size))
        of_weights = factors.to(merged.dtype)[..., None, None, None, None, None, None].unbind(1)
        for index, placement in enumerate(placements):
            weight = by_groups(_noisy(weights[index], scales, units, index), shape, placement)
            kernel_view(merged, shape, placement).addcmul_(weight, of_weights[index])
        return merged

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        shape, merged = ctx.shape, gradients[0].contiguous()
        factors, scales, *weights = ctx.saved_tensors
        _, _, _, need_factors, need_scales, *need_weights = ctx.needs_input_grad
        of_weights = factors.to(merged.dtype)[..., None, None, None, None, None, None].unbind(1)
        for_factors: list[Tensor] = []
        for_scales: list[Tensor] = []
        for_weights: list[Tensor | None] = []
        for index, placement in enumerate(ctx.placements):
            view = kernel_view(merged, shape, placement)
            if need_factors:
                weight = by_groups(_noisy(weights[index], scales, ctx.units, index), shape, placement)
                for_factors.append((view * weight).flatten(1).sum(1))
            gradient = None
            if need_weights[index] or need_scales:
                gradient = (view * of_weights[index]).sum(0) if len(merged) > 1 else view[0] * of_weights[index][0]
            if need_scales and gradient is not None:
                for_scales.append((gradient * by_groups(ctx.units[index], shape, placement)).sum())
            for_weights.append(gradient.flatten(0, 2) if gradient is not None and need_weights[index] else None)
        return (
            None,
            None,
            None,
            torch.stack(for_factors, dim=1).to(factors.dtype) if for_factors else None,
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
    scales: Tensor | None = None,
    units: Sequence[Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """``sum_k factor_k (W_k + scale_k e_k)``, every kernel padded with zeros to the merged shape.

    Convolution is linear: ``sum_k p_k conv(x, W_k) = conv(x, sum_k p_k W_k)``.

    Args:
        shape: of the merged kernel.
        placements: where every weight goes.
        weights: ``[C_out_k, C_in / groups_k, ...]`` each.
        factors: ``[kernels, K]``; each row makes a kernel of the same weights and noise.
        scales: ``[K]`` steps of the weights' noise; None for no noise.
        units: unit noise, shape of each weight; with ``scales``.

    Returns:
        The kernels, differentiable in weights, factors and scales.
    """
    merged: Tensor = _MergedKernels.apply(shape, placements, units, factors, scales, *weights)
    return merged.unbind()
