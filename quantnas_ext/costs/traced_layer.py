"""What is known of a layer of a space: what it multiplies and keeps, and under which choices it is there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nni.mutable import Mutable
from nni.nas.nn.pytorch import Repeat
from torch import nn

from quantnas_ext.distribution.choices import Context
from quantnas_ext.nn.mutable_layers import searched_precision
from quantnas_ext.quantization import FULL_PRECISION_BITS, Precision
from quantnas_ext.quantization.layers import QuantizedLayer
from quantnas_ext.quantization.protocol import DEFAULT, numbers_stored

FULL_PRECISION = Precision(FULL_PRECISION_BITS, FULL_PRECISION_BITS)


@dataclass(frozen=True)
class TracedLayer:
    """One place where a space computes or keeps parameters.

    Attributes:
        path: module path in the space.
        macs: multiply-accumulate operations for one sample (0 for what is no convolution and no linear layer).
        weights: elements of its weight, which are stored at its precision.
        other_parameters: elements of everything else that is stored (bias, batch norm with its running statistics), at
            32 bits.
        context: the choices ``(label, value)`` under which it is there.
        precisions: those that it can have, each by the choice of it; a fixed one by no choice. Of a block that is there
            from some depth on, each for every such depth.
        quantizer_numbers: how many numbers of 32 bits its quantizers store, by its precision.
    """

    path: str
    macs: int
    weights: int
    other_parameters: int
    context: frozenset[Context]
    precisions: Mapping[frozenset[Context], Precision]
    quantizer_numbers: Mapping[Precision, int] = field(default_factory=dict)


def traced_layer(module: nn.Module, path: str, context: tuple[Context, ...], macs: int) -> TracedLayer:
    """The layer that a convolution or linear layer is, with the multiply-accumulates that it was seen to do."""
    weight: Any = module.weight
    bias: Any = module.bias
    searched = searched_precision(module)
    precisions: dict[frozenset[Context], Precision]
    if searched is not None:
        precisions = {frozenset([(searched.label, value)]): Precision.parse(value) for value in searched.values}
    else:
        precisions = {frozenset(): module.precision if isinstance(module, QuantizedLayer) else FULL_PRECISION}
    kinds = getattr(module, "weight_kind", DEFAULT), getattr(module, "activation_kind", DEFAULT)
    numbers = {precision: numbers_stored(*kinds, precision, weight.shape[0]) for precision in precisions.values()}
    biases = 0 if bias is None else math.prod(bias.shape)
    return TracedLayer(path, macs, weight.numel(), biases, frozenset(context), precisions, numbers)


@dataclass(frozen=True)
class AnyOf:
    """In the place of a choice's value: one of several."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


def deep_enough(repeat: Repeat, index: int) -> list[Context]:
    """What is chosen where a block of a ``Repeat`` is there: a depth beyond its index."""
    if not isinstance(repeat.depth_choice, Mutable):
        return []
    values = repeat.depth_choice.values
    deep = tuple(value for value in values if value > index)
    return [] if len(deep) == len(values) else [(str(repeat.label), AnyOf(deep))]


def with_depths(layer: TracedLayer) -> TracedLayer:
    """A layer whose context has plain values, for every combination of depths at which it is there."""
    deep = [(label, value.values) for label, value in layer.context if isinstance(value, AnyOf)]
    if not deep:
        return layer
    plain = frozenset((label, value) for label, value in layer.context if not isinstance(value, AnyOf))
    ways = [frozenset(way) for way in itertools.product(*([(label, v) for v in values] for label, values in deep))]
    precisions = {way | chosen: precision for way in ways for chosen, precision in layer.precisions.items()}
    return replace(layer, context=plain, precisions=precisions)


def described(context: frozenset[Context]) -> str:
    """Choices in words."""
    return ", ".join(sorted(f"{label} = {value}" for label, value in context)) or "always there"
