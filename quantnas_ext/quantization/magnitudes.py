"""Histograms of magnitudes, and the quantization step that has the least squared error on one.

Bins are equal in the logarithm and the same for all data, so histograms of many batches, and of several processes, add
up. A bin is as wide as an eighth of an octave; within it values are taken to be spread evenly, and the error of such a
bin is an integral in closed form, whatever the step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantnas_ext.quantization.lsq import integer_range

BINS_PER_OCTAVE = 8
LOWEST_OCTAVE, HIGHEST_OCTAVE = -40, 24
BINS = BINS_PER_OCTAVE * (HIGHEST_OCTAVE - LOWEST_OCTAVE)
"""Bins from 2^-40 to 2^24. What is smaller or larger counts in the first or last one."""

_CANDIDATES = 80  # steps that clip between none and all but 2^-10 of the largest value
_WORTH_COUNTING = 20 * BINS_PER_OCTAVE  # smaller values by 2^20 than the largest do not matter to any error


def magnitude_histogram(x: Tensor, *, signed: bool) -> Tensor:
    """Shares of values by magnitude: ``[2, BINS]`` of negative and positive ones, or ``[1, BINS]`` of positive ones.

    Args:
        x: any shape and floating dtype. Zeros, and what is no finite number, are in no bin.
        signed: whether negative values count.

    Returns:
        float32. Shares are of all values of ``x``, so a batch weighs the same whatever its size.
    """
    x = x.detach().float().flatten()
    counts = []
    for row in (-x, x) if signed else (x,):
        octaves = row[(row > 0) & row.isfinite()].log2().clamp(LOWEST_OCTAVE, HIGHEST_OCTAVE)
        counts.append(torch.histc(octaves, BINS, LOWEST_OCTAVE, HIGHEST_OCTAVE))
    return torch.stack(counts) / max(1, x.numel())


def largest_magnitude(x: Tensor, *, signed: bool) -> Tensor:
    """The largest finite magnitude of the values that a histogram counts, float32 ``[]``; 0 where there are none."""
    x = x.detach().float()
    x = x.where(x.isfinite(), 0)
    return (x.abs() if signed else x.clamp_min(0)).amax() if x.numel() else x.new_zeros(())


def _integral(t: Tensor, high: int) -> Tensor:
    """``int_0^t (u - min(round(u), high))^2 du``: a twelfth for each whole number, and a cube for the rest."""
    whole = t.round().clamp_max(high)
    return whole / 12 + (t - whole) ** 3 / 3


def squared_errors(histogram: Tensor, largest: Tensor, steps: Tensor, bits: int, *, signed: bool) -> Tensor:
    """Mean squared error of quantizing the values of a histogram, for each of some steps.

    Args:
        histogram: as ``magnitude_histogram``.
        largest: the largest magnitude in it, ``[]``, where its last bin in use ends.
        steps: ``[S]``, positive.
        bits: width of the integers.
        signed: whether the integers are signed.

    Returns:
        ``[S]``, float64, on the CPU.
    """
    histogram, steps = histogram.to("cpu", torch.float64), steps.to("cpu", torch.float64)
    low, high = integer_range(bits, signed=signed)
    used = histogram.sum(dim=0).nonzero().flatten()
    if not len(used):
        return torch.zeros_like(steps)
    first, last = max(int(used[0]), int(used[-1]) - _WORTH_COUNTING), int(used[-1]) + 1
    edges = torch.exp2(LOWEST_OCTAVE + torch.arange(first, last + 1, dtype=torch.float64) / BINS_PER_OCTAVE)
    edges[-1] = min(float(edges[-1]), max(float(largest), float(edges[-2]) * (1 + 1e-6)))
    ratios = edges / steps[:, None]
    errors = torch.zeros_like(steps)
    for row, limit in zip(histogram, (-low, high) if signed else (high,), strict=True):
        errors += (_integral(ratios, limit).diff() / ratios.diff() * row[first:last]).sum(dim=1)
    return errors * steps.square()


def least_error_step(histogram: Tensor, largest: Tensor, bits: int, *, signed: bool) -> tuple[float, float]:
    """The step of least squared error on a histogram, and that error.

    Looked for among steps, eight to an octave, that clip between none and all but 2^-10 of the largest value.

    Args:
        histogram: as ``magnitude_histogram``.
        largest: the largest magnitude in it, ``[]``, positive.
        bits, signed: as ``squared_errors``.
    """
    top = float(largest) / integer_range(bits, signed=signed)[1]
    steps = top * torch.exp2(-torch.arange(_CANDIDATES, dtype=torch.float64) / BINS_PER_OCTAVE)
    errors = squared_errors(histogram, largest, steps, bits, signed=signed)
    best = int(errors.argmin())
    return float(steps[best]), float(errors[best])
