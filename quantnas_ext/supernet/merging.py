"""Which candidates of blocks that read one tensor are computed as one convolution."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from quantnas_ext.quantization.noise.additive import kept_for_training
from quantnas_ext.quantization.noise.merged_kernels import MergedShape, NoiseCells, Placement
from quantnas_ext.supernet.mixed_layers import MixedQuantConv2d


@dataclass(frozen=True)
class Candidate:
    """One candidate of a block under the present draw.

    Attributes:
        block: place of the block among those that read the input.
        index: place of the candidate in the block.
        module: the candidate.
    """

    block: int
    index: int
    module: nn.Module

    @functools.cached_property
    def first(self) -> MixedQuantConv2d | None:
        """The convolution behind the ReLU that the candidate begins with, if it does."""
        module = self.module
        begins = type(module) is nn.Sequential and len(module) > 1 and isinstance(module[0], nn.ReLU)
        return module[1] if begins and isinstance(module[1], MixedQuantConv2d) else None  # type: ignore[index]

    @functools.cached_property
    def rest(self) -> list[tuple[Any, bool]]:
        """The layers behind that convolution; a convolution takes the ReLU in front of it with it, which is told."""
        layers: list[tuple[Any, bool]] = []
        for layer in [] if self.first is None else list(cast(nn.Sequential, self.module))[2:]:
            relu = isinstance(layer, MixedQuantConv2d) and bool(layers) and type(layers[-1][0]) is nn.ReLU
            if relu:
                layers.pop()
            layers.append((layer, relu))
        return layers

    @functools.cached_property
    def only(self) -> MixedQuantConv2d | None:
        """That convolution where it is all there is, and can be merged: odd size, "same" padding of zeros, no bias."""
        first = self.first
        if first is None or self.rest or first.bias is not None:
            return None
        extents = [d * (k - 1) for d, k in zip(first.dilation, first.kernel_size, strict=True)]
        same = all(extent % 2 == 0 for extent in extents) and first.padding == tuple(e // 2 for e in extents)
        same = same and (first.padding_mode == "zeros" or not any(first.padding))
        return first if same and first.stride == (1, 1) else None


@dataclass(frozen=True)
class Merger:
    """Single convolutions that are computed as one.

    Attributes:
        candidates: they, two or more.
        shape: of the merged kernel.
        starts: first output channel of every block that takes part, by its place.
    """

    candidates: tuple[Candidate, ...]
    shape: MergedShape
    starts: dict[int, int]

    @functools.cached_property
    def placements(self) -> list[Placement]:
        """Where the candidates' kernels stand in the merged one, in their order."""
        layers = [(candidate, cast(MixedQuantConv2d, candidate.only)) for candidate in self.candidates]
        return [
            self.shape.place(self.starts[candidate.block], layer.weight, layer.dilation, layer.groups)
            for candidate, layer in layers
        ]

    @functools.cached_property
    def _cells(self) -> dict[Any, NoiseCells]:
        return {}

    def cells(self, kernel: Tensor) -> NoiseCells:
        """Where the candidates' weight noise goes, for a kernel's device and dtype."""
        key = kernel.device, kernel.dtype
        if key not in self._cells:
            with kept_for_training():
                self._cells[key] = NoiseCells.of(self.shape, self.placements, kernel)
        return self._cells[key]

    @property
    def padding(self) -> tuple[int, int]:
        """That keeps height and width."""
        return self.shape.size[2] // 2, self.shape.size[3] // 2

    @property
    def products(self) -> int:
        """Multiplications for one position."""
        return math.prod(self.shape.size)


def _merger(candidates: Sequence[Candidate]) -> Merger:
    """Of all candidates given."""
    layers = [cast(MixedQuantConv2d, candidate.only) for candidate in candidates]
    blocks = {candidate.block: layer.out_channels for candidate, layer in zip(candidates, layers, strict=True)}
    starts = {block: sum(width for other, width in blocks.items() if other < block) for block in blocks}
    groups = math.gcd(*(layer.groups for layer in layers))
    extents = [max(layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1 for layer in layers) for axis in (0, 1)]
    size = (sum(blocks.values()), layers[0].in_channels // groups, extents[0], extents[1])
    return Merger(tuple(candidates), MergedShape(size, groups), starts)


def _products(candidates: Sequence[Candidate]) -> int:
    """Multiplications for one position of separate convolutions."""
    return sum(cast(MixedQuantConv2d, candidate.only).weight.numel() for candidate in candidates)


def merge(candidates: Sequence[Candidate]) -> tuple[list[Merger], list[Candidate]]:
    """Which candidates to merge, and which to compute on their own: what takes the fewest multiplications.

    Args:
        candidates: of all blocks that read the input.
    """
    alone = [candidate for candidate in candidates if candidate.only is None]
    by_block: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.only is not None:
            by_block.setdefault(candidate.block, []).append(candidate)
    mergers = []
    for singles in by_block.values():
        merger = _merger(singles)
        if len(singles) > 1 and merger.products <= _products(singles):
            mergers.append(merger)
        else:
            alone += singles
    if len(mergers) > 1:
        together = _merger([candidate for merger in mergers for candidate in merger.candidates])
        if together.shape.groups == 1 and together.products <= sum(merger.products for merger in mergers):
            mergers = [together]
    return mergers, alone
