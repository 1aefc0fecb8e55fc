"""Several convolutions of one input as one: their kernels, weighted, in one larger kernel."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quantnas_ext.quantization.noise.additive import safe_sqrt


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
def _strides(
    shape: MergedShape, placement: Placement, channels_last: bool
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Size, strides and offset of the entries of a placement in a merged kernel that lies in one of two orders."""
    rows, columns = (slice(*window) for window in placement.window)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    merged = torch.empty(shape.size, device="meta", memory_format=memory_format)
    view = merged[placement.start : placement.start + placement.channels, :, rows, columns]
    many = placement.groups // shape.groups
    view = view.unflatten(0, (shape.groups, many, -1)).unflatten(3, (many, -1))
    view = view.diagonal(dim1=1, dim2=3).movedim(-1, 1)
    if channels_last:
        view = view.movedim(3, -1)
    return tuple(view.shape), view.stride(), int(view.storage_offset())


class _Layout(NamedTuple):
    """In which order weights lie in memory, and with them the kernel they are merged into."""

    channels_last: bool

    @classmethod
    def of(cls, weights: Sequence[Tensor]) -> _Layout:
        """Channels last where any weight has them last; those of 1x1 kernels lie both ways."""
        return cls(any(not w.is_contiguous() and w.is_contiguous(memory_format=torch.channels_last) for w in weights))

    def in_order(self, weight: Tensor) -> Tensor:
        """``[C_out, C_in, k, l]`` with its dimensions in the order of memory."""
        return weight.permute(0, 2, 3, 1) if self.channels_last else weight

    def in_usual_order(self, flat: Tensor, like: Tensor) -> Tensor:
        """A vector in the order of memory as ``[C_out, C_in, k, l]``, the shape of ``like``."""
        if not self.channels_last:
            return flat.view(like.shape)
        outputs, inputs, height, width = like.shape
        return flat.view(outputs, height, width, inputs).permute(0, 3, 1, 2)

    def entries(self, merged: Tensor, shape: MergedShape, placement: Placement) -> Tensor:
        """What one convolution's weight stands for in merged kernels, in the order of memory, as a view.

        Args:
            merged: memory of ``[kernels, *shape.size]`` without gaps in this layout.
            shape: of each kernel.
            placement: of the convolution in them.

        Returns:
            ``[kernels, groups, m, C_out / (groups m), ...]``: a convolution that has m groups for each group of the
            merged one is a block diagonal there.
        """
        size, strides, offset = _strides(shape, placement, self.channels_last)
        whole = (merged.shape[0], *size), (merged.stride(0), *strides)
        return merged.as_strided(*whole, merged.storage_offset() + offset)


class _MergedKernels(torch.autograd.Function):
    """All kernels at once, without keeping what is between weights and kernels."""

    @staticmethod
    def forward(
        ctx: Any,
        shape: MergedShape,
        placements: Sequence[Placement],
        factors: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(factors, *weights)
        ctx.shape, ctx.placements = shape, placements
        ctx.layout = layout = _Layout.of(weights)
        outputs, inputs, height, width = shape.size
        size = (outputs, height, width, inputs) if layout.channels_last else shape.size
        merged = weights[0].new_zeros((len(factors), *size))
        of_weights = factors.to(merged.dtype)[..., None, None, None, None, None, None].unbind(1)
        for index, placement in enumerate(placements):
            entries = layout.entries(merged, shape, placement)
            entries.addcmul_(layout.in_order(weights[index]).reshape(entries.shape[1:]), of_weights[index])
        return merged.permute(0, 1, 4, 2, 3) if layout.channels_last else merged

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        with torch.autocast(gradients[0].device.type, enabled=False):
            return _gradients(ctx, gradients[0])


def _gradients(ctx: Any, merged: Tensor) -> tuple[Any, ...]:
    """Of all inputs, out of that of the merged kernels."""
    layout = ctx.layout
    merged = (merged.permute(0, 1, 3, 4, 2) if layout.channels_last else merged).contiguous()
    factors, *weights = ctx.saved_tensors
    _, _, need_factors, *need_weights = ctx.needs_input_grad
    of_weights = factors.to(merged.dtype).unbind(1)
    along_weights: list[Tensor] = []
    for_weights: list[Tensor | None] = []
    for index, placement in enumerate(ctx.placements):
        entries = layout.entries(merged, ctx.shape, placement).reshape(merged.shape[0], -1)
        if need_factors:
            along_weights.append(torch.mv(entries, layout.in_order(weights[index]).reshape(-1)))
        gradient = torch.mv(entries.t(), of_weights[index]) if need_weights[index] else None
        for_weights.append(gradient if gradient is None else layout.in_usual_order(gradient, weights[index]))
    for_factors = torch.stack(along_weights, dim=1).to(factors.dtype) if need_factors else None
    return None, None, for_factors, *for_weights


def merged_kernels(
    shape: MergedShape, placements: Sequence[Placement], weights: Sequence[Tensor], factors: Tensor
) -> tuple[Tensor, ...]:
    """``sum_k factor_k W_k``, every kernel padded with zeros to the merged shape.

    Convolution is linear: ``sum_k p_k conv(x, W_k) = conv(x, sum_k p_k W_k)``.

    Args:
        shape: of the merged kernel.
        placements: where every weight goes.
        weights: ``[C_out_k, C_in / groups_k, ...]`` each.
        factors: ``[kernels, K]``; each row makes a kernel of the same weights.

    Returns:
        The kernels, differentiable in weights and factors.
    """
    merged: Tensor = _MergedKernels.apply(shape, placements, factors, *weights)
    return (merged.squeeze(0),) if len(merged) == 1 else merged.unbind()


class NoiseCells(NamedTuple):
    """Where in a merged kernel the noise of each of its weights goes.

    Attributes:
        covered: ``[K, C_out * blocks * k * l]``, ones in the cells that a weight reaches; a cell is what one output
            channel makes of one block of input channels at one place of the window.
        blocks: of input channels; within one all weights reach the same.
    """

    covered: Tensor
    blocks: int

    @classmethod
    def of(cls, shape: MergedShape, placements: Sequence[Placement], like: Tensor) -> NoiseCells:
        """For kernels of that device and dtype."""
        dtype = torch.promote_types(like.dtype, torch.float32)  # squares of steps vanish in half precision
        covered = torch.zeros(len(placements), *shape.size, device=like.device, dtype=dtype)
        layout = _Layout(channels_last=False)
        for index, placement in enumerate(placements):
            layout.entries(covered[index : index + 1], shape, placement).fill_(1.0)
        blocks = math.lcm(*(placement.groups // shape.groups for placement in placements))
        return cls(covered[:, :, :: shape.size[1] // blocks].flatten(1), blocks)

    def add_noise(self, kernel: Tensor, unit: Tensor, scales: Tensor) -> Tensor:
        """``kernel + D e`` with the variance of ``sum_k scale_k e_k``, independent noise for each weight.

        Args:
            kernel: ``[C_out, C_in / groups, k, l]``.
            unit: unit noise of that shape.
            scales: ``[K]``, the steps of the weights times their factors.

        Returns:
            The shape of ``kernel``, differentiable in it and in the scales.
        """
        steps = safe_sqrt(_of_cells(self.covered, scales.to(self.covered.dtype).square())).to(kernel.dtype)
        steps = steps.view(len(kernel), self.blocks, 1, *kernel.shape[2:])
        noisy = torch.addcmul(kernel.unflatten(1, (self.blocks, -1)), unit.unflatten(1, (self.blocks, -1)), steps)
        return noisy.flatten(1, 2)


def _of_cells(covered: Tensor, powers: Tensor) -> Tensor:
    """Sum of the powers that reach each cell, not in the dtype of autocast, where small ones would vanish."""
    if not torch.is_autocast_enabled(covered.device.type):
        return torch.mv(covered.t(), powers)
    with torch.autocast(covered.device.type, enabled=False):
        return torch.mv(covered.t(), powers)
