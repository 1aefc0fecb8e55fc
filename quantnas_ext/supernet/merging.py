"""Which candidates of blocks that read one tensor are computed as one convolution, and why others are not."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
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
    def layers(self) -> list[nn.Module]:
        """What it computes one after the other, so far as it is written as ``nn.Sequential``, nested ones too."""
        return list(_in_a_row(self.module))

    @functools.cached_property
    def first(self) -> MixedQuantConv2d | None:
        """The convolution behind the ReLU that the candidate begins with, if it does."""
        layers = self.layers
        begins = len(layers) > 1 and isinstance(layers[0], nn.ReLU) and isinstance(layers[1], MixedQuantConv2d)
        return cast(MixedQuantConv2d, layers[1]) if begins else None

    @functools.cached_property
    def rest(self) -> list[tuple[Any, bool]]:
        """The layers behind that convolution; a convolution takes the ReLU in front of it with it, which is told."""
        layers: list[tuple[Any, bool]] = []
        for layer in [] if self.first is None else self.layers[2:]:
            relu = isinstance(layer, MixedQuantConv2d) and bool(layers) and type(layers[-1][0]) is nn.ReLU
            if relu:
                layers.pop()
            layers.append((layer, relu))
        return layers

    @functools.cached_property
    def only(self) -> MixedQuantConv2d | None:
        """That convolution where it is all there is, and can be merged."""
        return self.first if self.obstacle is None else None

    @functools.cached_property
    def obstacle(self) -> str | None:
        """What keeps it from being merged with others, in words; None where nothing does."""
        first = self.first
        if first is None:
            begin = " and ".join(type(layer).__name__ for layer in self.layers[:2]) or "nothing"
            return (
                f"it begins with {begin}, not with a ReLU and a convolution of searched precision in an nn.Sequential"
            )
        if self.rest:
            return f"{type(self.rest[0][0]).__name__} follows its first convolution"
        if first.bias is not None:
            return "its convolution has a bias"
        extents = [d * (k - 1) for d, k in zip(first.dilation, first.kernel_size, strict=True)]
        if any(extent % 2 for extent in extents) or first.padding != tuple(extent // 2 for extent in extents):
            return "its padding does not keep height and width"
        if first.padding_mode != "zeros" and any(first.padding):
            return f"it pads with {first.padding_mode} and not with zeros"
        return None if first.stride == (1, 1) else "its stride is not 1"


def _in_a_row(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of a candidate, without identities."""
    if type(module) is nn.Sequential:
        for layer in module:
            yield from _in_a_row(layer)
    elif type(module) is not nn.Identity:
        yield module


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
        separate = sum(cast(MixedQuantConv2d, candidate.only).weight.numel() for candidate in singles)
        if len(singles) > 1 and merger.products <= separate:
            mergers.append(merger)
        else:
            alone += singles
    if len(mergers) > 1:
        together = _merger([candidate for merger in mergers for candidate in merger.candidates])
        if together.shape.groups == 1 and together.products <= sum(merger.products for merger in mergers):
            mergers = [together]
    return mergers, alone
