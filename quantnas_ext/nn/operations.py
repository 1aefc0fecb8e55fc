"""The registry of candidate operations, and blocks that choose among them.

An operation maps ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``; one precision covers all that is quantized
in it. ``register_operation`` adds one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import nni
from torch import nn

from quantnas_ext.arguments import Registry
from quantnas_ext.errors import InputError, about
from quantnas_ext.nn.choice_block import ChoiceBlock
from quantnas_ext.quantization import Precision, precision_choices


class OperationBuilder(Protocol):
    """Builds an operation."""

    def __call__(self, in_channels: int, out_channels: int, *, width: int, bits: Any) -> nn.Module:
        """``width`` is the space's number of channels, ``bits`` a precision or an NNI choice of some."""
        ...


OPERATIONS: Registry[OperationBuilder] = Registry("operation")

WITHOUT_PRECISION: set[str] = set()
"""Names of the operations that hold no quantized layer: their candidates have no precision label."""


def register_operation(name: str, *, quantized: bool = True) -> Callable[[OperationBuilder], OperationBuilder]:
    """Decorator that makes a builder known under ``name`` to every space.

    Args:
        name: what configurations and architecture files call it.
        quantized: whether it has a layer that takes ``bits``; an identity, for one, has none.

    Raises:
        InputError: when the name is taken or cannot be part of an NNI label.
    """
    register = OPERATIONS.register(name)
    if not quantized:
        WITHOUT_PRECISION.add(name)
    return register


def precision_label(block: str, operation: str) -> str:
    """NNI label of the precision of one candidate of a block."""
    return f"{block}__{operation}__bits"


def operation_block(
    label: str,
    operations: Sequence[str],
    in_channels: int,
    out_channels: int,
    *,
    width: int,
    bits: Iterable[Precision | int | str | Sequence[int]],
) -> ChoiceBlock:
    """A choice among named operations, each of which has a choice of precisions.

    Args:
        label: NNI label of the block, for example ``"body_0"``.
        operations: names in ``OPERATIONS``.
        in_channels, out_channels: channels of the block.
        width: the space's number of channels (inner width of operations of several layers).
        bits: precisions that every candidate with a quantized layer offers.

    Returns:
        The block; inside ``model_context(sample)`` the chosen operation itself.

    Raises:
        InputError: for an unknown operation, an empty or repeated list, or an operation impossible at these widths.
    """
    if not operations:
        raise InputError(f"block {label!r} has no candidate operations; give at least one, for example conv_3x3")
    if len(set(operations)) < len(operations):
        raise InputError(f"block {label!r} lists an operation twice: {', '.join(operations)}; name each once")
    values = precision_choices(bits)
    candidates: dict[str, Callable[[], nn.Module]] = {}
    for name in operations:
        OPERATIONS.find(name)
        candidates[name] = functools.partial(_build, label, name, in_channels, out_channels, width, values)
    return ChoiceBlock(candidates, label=label)


def _build(label: str, name: str, in_channels: int, out_channels: int, width: int, values: list[Any]) -> nn.Module:
    choice = nni.choice(precision_label(label, name), values)
    with about(f"operation {name!r} of block {label!r} is not possible"):
        return OPERATIONS[name](in_channels, out_channels, width=width, bits=choice)
