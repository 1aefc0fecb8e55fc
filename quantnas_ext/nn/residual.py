"""Residual branches, plain and with activation distribution quantization (ADQ)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """``f(x) + x``.

    Args:
        branch: f, keeps the shape.
    """

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        return self.branch(x) + x


class ADQResidual(nn.Module):
    """``f(BN(x)) * (a std(x) + b) + x``: batch norm before a residual branch, its effect on the scale undone after it.

    ``std`` is taken per sample over channels and positions; ``a`` starts at 1.5 and ``b`` at 0, both learned.
    Source: Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024), section on ADQ, after AdaDM
    (Liu et al., "AdaDM: Enabling Normalization for Image Super-Resolution", 2021), which has ``exp(a log std + b)``.

    Args:
        branch: f, keeps the shape.
        channels: C of its input.
    """

    def __init__(self, branch: nn.Module, channels: int) -> None:
        super().__init__()
        self.branch = branch
        self.norm = nn.BatchNorm2d(channels)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        deviation = x.std(dim=(1, 2, 3), keepdim=True)
        return self.branch(self.norm(x)) * (self.scale * deviation + self.shift) + x


def residual(branch: nn.Module, channels: int, *, adq: bool) -> nn.Module:
    """``ADQResidual`` where ``adq``, else ``Residual``."""
    return ADQResidual(branch, channels) if adq else Residual(branch)
