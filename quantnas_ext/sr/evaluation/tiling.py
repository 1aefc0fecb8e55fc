"""Enlarging an image tile by tile, with the pixels that it has when it is enlarged whole.

A tile is computed with a margin as wide as the network sees, which is then cut off. What a layer takes from the whole
image is gathered from all tiles first: the deviation of a sample in ADQ and AdaDM, the far map of ESA. So an image is
gone through once for each such layer, up to that layer, and once more to the end.

In double precision the pixels are the same bit for bit. In single precision that rests on the library of convolutions
adding in one order whatever the size of its input, which oneDNN does for tiles of some hundred pixels; where it does
not, a number that falls on the other side of a quantizer's threshold can move a pixel by a level or two.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quantnas_ext.nn import ESA, ADQResidual, RepeatedChannels
from quantnas_ext.nn.esa import POOLING_STRIDE, POOLING_WINDOW
from quantnas_ext.nn.residual import Moments
from quantnas_ext.quantization import ActivationQuantizer, QuantConv2d, WeightQuantizer
from quantnas_ext.sr.data.images import image_to_tensor, tensor_to_image

_GRID = POOLING_STRIDE
"""Tiles begin at multiples of it, where ESA's windows do."""

_PROBES = (65, 129, 257, 513)
_PARTS = (
    *(nn.Sequential, nn.ModuleList, nn.Identity, nn.ReLU, nn.PixelShuffle, nn.BatchNorm2d, RepeatedChannels),
    WeightQuantizer,
)
"""Parts that do the same everywhere in an image, from what lies around; besides convolutions and the package's own."""


@dataclass(frozen=True)
class _Place:
    """Where a tile lies, in low-resolution pixels: the image, the tile with its margin, the part that is kept."""

    image: tuple[int, int]
    tile: tuple[slice, slice]
    core: tuple[slice, slice]

    def times(self, factor: int) -> _Place:
        """The same place at another resolution."""
        top, left, core_top, core_left = (
            slice(factor * part.start, factor * part.stop) for part in (*self.tile, *self.core)
        )
        height, width = self.image
        return _Place((factor * height, factor * width), (top, left), (core_top, core_left))


class _Gathering(Exception):
    """Ends a forward pass at a layer that needs all tiles before it can go on."""

    def __init__(self, part: _Deviation | _FarMap) -> None:
        self.part = part


@torch.no_grad()
def tile_margin(network: nn.Module) -> int | None:
    """How far a network sees: low-resolution pixels around a tile that its pixels depend on.

    It is measured: one pixel of an image is made NaN, which every layer hands on to all that depends on it. What ADQ
    and ESA take from the whole image is set aside meanwhile.

    Args:
        network: in evaluation mode.

    Returns:
        A multiple of 6; None where tiles would change pixels, because the network has parts that are not known to do
        the same everywhere, activation steps that have not started (each image would start its own), or no end of
        sight.
    """
    if network.training or not all(_is_known(module) for module in _own_parts(network)):
        return None
    probe = copy.deepcopy(network).cpu().double()
    parts = _global_parts(probe)
    with _replaced({module: part.nothing for module, part in parts.items()}):
        for side in _PROBES:
            image, centre = torch.full((1, 3, side, side), 0.5, dtype=torch.float64), side // 2
            image[..., centre, centre] = torch.nan
            touched = probe(image).isnan()[0].any(dim=0)
            scale = touched.shape[-1] // side
            seen = 0
            for axis in (0, 1):
                (where,) = touched.any(dim=axis).nonzero(as_tuple=True)
                if not len(where):
                    return None
                before, behind = scale * centre - int(where[0]), int(where[-1]) - (scale * centre + scale - 1)
                seen = max(seen, -(-before // scale), -(-behind // scale))
            if seen < centre:
                if any(isinstance(module, ESA) for module in parts):
                    seen += POOLING_WINDOW - 1
                return -(-seen // _GRID) * _GRID
    return None


@torch.no_grad()
def upscale_tiles(network: nn.Module, image: np.ndarray, tile: int, margin: int) -> np.ndarray:
    """Enlarge an image with at most ``tile + 2 margin + 5`` pixels a side in the network at once.

    Args:
        network: in evaluation mode.
        image: ``uint8 [h, w, 3]``.
        tile: side of a tile without its margin, at least 24; rounded down to a multiple of 6.
        margin: from ``tile_margin``.

    Returns:
        ``uint8 [s h, s w, 3]``.
    """
    device = next(network.parameters()).device
    places = list(_places((image.shape[0], image.shape[1]), tile - tile % _GRID, margin))
    parts = _global_parts(network)
    result: np.ndarray | None = None
    with _replaced(dict(parts)):
        waiting: _Deviation | _FarMap | None = None
        while result is None or waiting is not None:
            waiting = None
            for place in places:
                for part in parts.values():
                    part.place = place
                rows, columns = place.tile
                try:
                    enlarged = tensor_to_image(network(image_to_tensor(image[rows, columns]).to(device)))
                except _Gathering as stop:
                    waiting = stop.part
                    continue
                scale = enlarged.shape[0] // (rows.stop - rows.start)
                if result is None:
                    result = np.empty((image.shape[0] * scale, image.shape[1] * scale, 3), np.uint8)
                place = place.times(scale)
                result[place.core] = enlarged[_inside(place)]
            if waiting is not None:
                waiting.finish()
    assert result is not None
    return result


class _Deviation:
    """Stands in for ``ADQResidual.deviation``: that of the whole image, from the sums over the tiles."""

    def __init__(self, layer: ADQResidual) -> None:
        self.place: _Place | None = None
        self._moments: Moments | None = None
        self._value: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._value is None:
            assert self.place is not None
            place = _at_resolution_of(x, self.place)
            rows, columns = _inside(place)
            moments = Moments.of(x[..., rows, columns])
            self._moments = moments if self._moments is None else self._moments + moments
            raise _Gathering(self)
        return self._value.to(x.dtype)

    def finish(self) -> None:
        assert self._moments is not None
        self._value = self._moments.deviation()

    def nothing(self, x: Tensor) -> Tensor:
        """A deviation that depends on no pixel."""
        return x.new_ones(1, 1, 1, 1)


class _FarMap:
    """Stands in for ``ESA.seen_from_afar``: the map of the whole image, pooled from the tiles, at a tile's place."""

    def __init__(self, layer: ESA) -> None:
        self.place: _Place | None = None
        self._layer = layer
        self._pooled: Tensor | None = None
        self._value: Tensor | None = None

    def __call__(self, reduced: Tensor) -> Tensor:
        assert self.place is not None
        place = _at_resolution_of(reduced, self.place)
        if self._value is not None:
            return self._layer.enlarged(self._value, place.image, place.tile)
        pooled = self._layer.pooled(reduced)
        sizes = [(side - POOLING_WINDOW) // _GRID + 1 for side in place.image]
        if self._pooled is None:
            self._pooled = pooled.new_empty(1, pooled.shape[1], *sizes)
        theirs, mine = [], []
        for core, whole, size in zip(place.core, place.tile, sizes, strict=True):
            first, last = core.start // _GRID, min(-(-core.stop // _GRID), size)
            theirs.append(slice(first, last))
            mine.append(slice(first - whole.start // _GRID, last - whole.start // _GRID))
        if all(part.stop > part.start for part in theirs):
            self._pooled[..., theirs[0], theirs[1]] = pooled[..., mine[0], mine[1]]
        raise _Gathering(self)

    def finish(self) -> None:
        assert self._pooled is not None
        self._value, self._pooled = self._layer.far(self._pooled), None

    def nothing(self, reduced: Tensor) -> Tensor:
        """A map that depends on no pixel."""
        return torch.zeros_like(reduced)


def _places(image: tuple[int, int], tile: int, margin: int) -> Iterator[_Place]:
    """The tiles of an image, row by row."""
    height, width = image
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            core = slice(top, min(top + tile, height)), slice(left, min(left + tile, width))
            whole = [
                slice(max(0, part.start - margin), min(side, part.stop + margin))
                for part, side in zip(core, image, strict=True)
            ]
            yield _Place(image, (whole[0], whole[1]), core)


def _at_resolution_of(x: Tensor, place: _Place) -> _Place:
    """A tile's place where the layer computes, which may be behind the enlargement."""
    return place.times(x.shape[-2] // (place.tile[0].stop - place.tile[0].start))


def _inside(place: _Place) -> tuple[slice, slice]:
    """The part that is kept, counted from the tile's own corner."""
    rows, columns = (
        slice(core.start - whole.start, core.stop - whole.start)
        for core, whole in zip(place.core, place.tile, strict=True)
    )
    return rows, columns


def _global_parts(network: nn.Module) -> dict[nn.Module, Any]:
    """What stands in for the layers that look at the whole image."""
    kinds: tuple[tuple[type[nn.Module], Any], ...] = ((ADQResidual, _Deviation), (ESA, _FarMap))
    return {module: part(module) for module in network.modules() for kind, part in kinds if isinstance(module, kind)}


@contextlib.contextmanager
def _replaced(calls: dict[nn.Module, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Let layers call these in place of their own look at the whole image."""
    names = {module: "seen_from_afar" if isinstance(module, ESA) else "deviation" for module in calls}
    for module, call in calls.items():
        setattr(module, names[module], call)
    try:
        yield
    finally:
        for module in calls:
            delattr(module, names[module])


def _own_parts(network: nn.Module) -> Iterator[nn.Module]:
    """All modules but those within ESA."""
    yield network
    for child in network.children():
        yield from [child] if isinstance(child, ESA) else _own_parts(child)


def _is_known(module: nn.Module) -> bool:
    """Whether a module does the same everywhere, or takes from the whole image only what is gathered here."""
    if isinstance(module, ActivationQuantizer):
        return module.ready and module.pointwise
    if isinstance(module, nn.Conv2d):
        return isinstance(module, QuantConv2d) and set(module.stride) == {1} and module.padding_mode == "zeros"
    if isinstance(module, ESA):
        return all(_is_known(part) for part in module.modules() if isinstance(part, ActivationQuantizer))
    return isinstance(module, _PARTS) or type(module).__module__.startswith("quantnas_ext.")
