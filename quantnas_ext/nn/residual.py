"""Residual branches: plain, or with a batch norm whose effect on the scale is undone behind the branch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quantnas_ext.nn.arithmetic import Add, Multiply


@dataclass(frozen=True)
class Moments:
    """Count, sums and sums of squares of samples, from which their standard deviations come.

    Summed in double precision, so that parts of a sample added up give what the whole sample gives, to the last bit of
    a float.

    Attributes:
        count: elements of a sample.
        sums, squares: ``float64 [N, 1, 1, 1]``.
    """

    count: int
    sums: Tensor
    squares: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Moments:
        """Those of ``[N, C, H, W]``."""
        wide = x.double()
        sums, squares = (part.sum(dim=(1, 2, 3), keepdim=True) for part in (wide, wide.square()))
        return cls(x[0].numel(), sums, squares)

    def __add__(self, other: Moments) -> Moments:
        """Those of both parts together."""
        return Moments(self.count + other.count, self.sums + other.sums, self.squares + other.squares)

    def deviation(self) -> Tensor:
        """``float64 [N, 1, 1, 1]``, unbiased, as ``torch.std``."""
        return ((self.squares - self.sums.square() / self.count).clamp(min=0) / (self.count - 1)).sqrt()


class Residual(nn.Module):
    """``f(x) + x``.

    Args:
        branch: f, keeps the shape.
    """

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        return self.add(self.branch(x), x)  # type: ignore[no-any-return]


class ADQResidual(nn.Module):
    """``f(BN(x)) * (a std(x) + b) + x``: batch norm before a residual branch, its effect on the scale undone after it.

    ``std`` is taken per sample over channels and positions; ``a`` starts at 1.5 and ``b`` at 0, both learned.
    Source: Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024), section on ADQ.

    Args:
        branch: f, keeps the shape.
        channels: C of its input.
    """

    START = 1.5
    """What ``a`` starts at."""

    def __init__(self, branch: nn.Module, channels: int) -> None:
        super().__init__()
        self.branch = branch
        self.norm = nn.BatchNorm2d(channels)
        self.multiply = Multiply()
        self.add = Add()
        self.scale = nn.Parameter(torch.tensor(self.START))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        deviation = self.deviation(x)
        return self.add(self.multiply(self.branch(self.norm(x)), self.rescaling(deviation)), x)

    def deviation(self, x: Tensor) -> Tensor:
        """Standard deviation of each sample over channels and positions, ``[N, 1, 1, 1]``.

        In evaluation mode from sums in double precision, which an image taken tile by tile has as well.
        """
        if self.training:
            return x.std(dim=(1, 2, 3), keepdim=True)
        return Moments.of(x).deviation().to(x.dtype)

    def rescaling(self, deviation: Tensor) -> Tensor:
        """The factor of the branch, from the standard deviation of each sample: both ``[N, 1, 1, 1]``."""
        return self.scale * deviation + self.shift


class AdaDMResidual(ADQResidual):
    """``f(BN(x)) * exp(a log std(x) + b) + x``: AdaDM, from which ADQ comes, whose factor stays positive.

    ``a`` starts at 1 and ``b`` at 0, where the factor is the deviation itself. A deviation below ``SMALLEST`` counts as
    that much, since a sample of one colour has none and its logarithm would be infinite.
    Source: Liu et al., "AdaDM: Enabling Normalization for Image Super-Resolution", 2021.

    Args:
        branch: f, keeps the shape.
        channels: C of its input.
    """

    START = 1.0
    SMALLEST = 1e-5

    def rescaling(self, deviation: Tensor) -> Tensor:
        """``exp(a log std + b)``."""
        return torch.exp(self.scale * deviation.clamp(min=self.SMALLEST).log() + self.shift)


RESIDUALS: dict[bool | str, type[ADQResidual] | None] = {True: ADQResidual, False: None, "adadm": AdaDMResidual}
"""What the ``adq`` of a space means; None is a plain residual."""


def residual(branch: nn.Module, channels: int, *, adq: bool | str) -> nn.Module:
    """A residual branch as a space's argument ``adq`` says: True, False or ``"adadm"``."""
    kind = RESIDUALS[adq]
    return Residual(branch) if kind is None else kind(branch, channels)
