"""Enhanced spatial attention: a mask over positions, computed at a small part of the cost of the layers around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantnas_ext.errors import InputError
from quantnas_ext.nn.arithmetic import Add, Multiply
from quantnas_ext.quantization import QuantConv2d

SMALLEST_SIDE = 15
"""Smallest side of an input, in pixels: the convolution of stride 2 leaves the 7 pixels that the pooling needs."""


POOLING_WINDOW = 15
"""Pixels a side of the input that one entry of the pooled map sees: 7 entries of stride 2, each of 3 pixels."""

POOLING_STRIDE = 6
"""Pixels between the windows of two neighbouring entries: stride 3 of stride 2."""


class ESA(nn.Module):
    """``x * sigmoid(mask(x))`` with a mask that sees far, because most of it is computed at a sixth of the resolution.

    With f = C / 4: ``a = conv1x1(x)``; ``b`` = ``a`` through a 3x3 convolution of stride 2 without padding, maximum
    pooling (7, stride 3) and three 3x3 convolutions, resized bilinearly to the size of ``x``;
    ``mask = conv1x1(b + conv1x1(a))``. No convolution has a bias or a ReLU; all are quantized, with signed inputs.
    Source: Liu et al., "Residual Feature Aggregation Network for Image Super-Resolution", CVPR 2020, as in RFDN (Liu et
    al., "Residual Feature Distillation Network for Lightweight Image Super-Resolution", ECCV Workshops 2020).

    Args:
        channels: C of its input, a multiple of 4.
        bits: precision of all its convolutions, in any form that ``Precision.parse`` reads.

    Raises:
        InputError: when C cannot be divided by 4, or the precision is impossible.
    """

    def __init__(self, channels: int, *, bits: Any) -> None:
        super().__init__()
        if channels % 4:
            raise InputError(f"ESA divides its channels by 4, which {channels} cannot be; use a multiple of 4")
        inner = channels // 4
        self.reduce = QuantConv2d(channels, inner, 1, bias=False, bits=bits)
        self.shrink = QuantConv2d(inner, inner, 3, stride=2, bias=False, bits=bits)
        self.far = nn.Sequential(*(QuantConv2d(inner, inner, 3, padding=1, bias=False, bits=bits) for _ in range(3)))
        self.near = QuantConv2d(inner, inner, 1, bias=False, bits=bits)
        self.add = Add()
        self.expand = QuantConv2d(inner, channels, 1, bias=False, bits=bits)
        self.multiply = Multiply()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape.

        Raises:
            InputError: when H or W is below ``SMALLEST_SIDE``.
        """
        height, width = x.shape[-2:]
        if min(height, width) < SMALLEST_SIDE:
            raise InputError(
                f"an input of {height} x {width} pixels is too small for a network with ESA; "
                f"both sides need at least {SMALLEST_SIDE} pixels"
            )
        reduced = self.reduce(x)
        mask = self.expand(self.add(self.seen_from_afar(reduced), self.near(reduced))).sigmoid()
        return self.multiply(x, mask)

    def seen_from_afar(self, reduced: Tensor) -> Tensor:
        """What the mask takes from far around: ``[N, C / 4, H, W]`` to the same shape."""
        height, width = reduced.shape[-2:]
        far = self.far(self.pooled(reduced))
        if self.training:
            return F.interpolate(far, (height, width), mode="bilinear", align_corners=False)
        return self.enlarged(far, (height, width), (slice(0, height), slice(0, width)))

    def pooled(self, reduced: Tensor) -> Tensor:
        """``[N, C / 4, H, W]`` to ``[N, C / 4, (H - 15) // 6 + 1, (W - 15) // 6 + 1]``."""
        return F.max_pool2d(self.shrink(reduced), kernel_size=7, stride=3)

    @staticmethod
    def enlarged(far: Tensor, size: tuple[int, int], window: tuple[slice, slice]) -> Tensor:
        """A window of a map resized bilinearly (without aligned corners), entry by entry as the whole would be.

        torch has no resizing of a window; its own resizing of the whole differs from this in the last bit.

        Args:
            far: ``[N, F, h, w]``.
            size: height and width of the whole.
            window: rows and columns of it.
        """
        for axis, (side, part) in enumerate(zip(size, window, strict=True), start=2):
            places = torch.arange(part.start, part.stop, dtype=torch.float64, device=far.device)
            places = ((places + 0.5) * (far.shape[axis] / side) - 0.5).clamp(min=0)
            low = places.long()
            share = (places - low).to(far.dtype).reshape([-1 if dim == axis else 1 for dim in range(far.dim())])
            high = (low + 1).clamp(max=far.shape[axis] - 1)
            far = far.index_select(axis, low) * (1 - share) + far.index_select(axis, high) * share
        return far
