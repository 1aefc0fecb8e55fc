"""Enhanced spatial attention: a mask over positions, computed at a small part of the cost of the layers around it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from quantnas_ext.errors import InputError
from quantnas_ext.quantization import QuantConv2d

SMALLEST_SIDE = 15
"""Smallest side of an input, in pixels: the convolution of stride 2 leaves the 7 pixels that the pooling needs."""


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
        self.expand = QuantConv2d(inner, channels, 1, bias=False, bits=bits)

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
        far = self.far(F.max_pool2d(self.shrink(reduced), kernel_size=7, stride=3))
        far = F.interpolate(far, (height, width), mode="bilinear", align_corners=False)
        return x * self.expand(far + self.near(reduced)).sigmoid()
