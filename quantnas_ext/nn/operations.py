"""Candidate operations of the SR spaces, found by name in one registry.

An operation maps ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``. Every convolution in it is a ReLU followed
by a quantized convolution without bias that pads to the same size, with unsigned activations; one precision covers all
of them. The candidates are those of Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import nni
from torch import nn

from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.nn.choice_block import ChoiceBlock
from quantnas_ext.nn.mutable_layers import MutableQuantConv2d
from quantnas_ext.quantization import Precision, precision_choices


class OperationBuilder(Protocol):
    """Builds an operation."""

    def __call__(self, in_channels: int, out_channels: int, *, width: int, bits: Any) -> nn.Module:
        """``width`` is the space's number of channels, ``bits`` a precision or an NNI choice of some."""
        ...


OPERATIONS: dict[str, OperationBuilder] = {}


def register_operation(name: str) -> Callable[[OperationBuilder], OperationBuilder]:
    """Decorator that makes a builder known under ``name`` to every space.

    Raises:
        InputError: when the name is taken or cannot be part of an NNI label.
    """
    if name in OPERATIONS:
        raise InputError(f"an operation named {name!r} exists already; choose another name")
    if not name.replace("_", "a").isalnum() or "__" in name:
        raise InputError(f"{name!r} cannot name an operation; use letters, digits and single underscores")

    def register(builder: OperationBuilder) -> OperationBuilder:
        OPERATIONS[name] = builder
        return builder

    return register


def relu_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: tuple[int, int],
    *,
    bits: Any,
    groups: int = 1,
    dilation: int = 1,
) -> list[nn.Module]:
    """A ReLU and the quantized convolution behind it, stride 1, "same" padding, no bias.

    Raises:
        InputError: when ``groups`` does not divide both numbers of channels.
    """
    if in_channels % groups or out_channels % groups:
        raise InputError(
            f"a convolution from {in_channels} to {out_channels} channels cannot have {groups} groups; "
            f"choose a width that is a multiple of {groups} or another operation"
        )
    padding = (dilation * (kernel_size[0] - 1) // 2, dilation * (kernel_size[1] - 1) // 2)
    convolution = MutableQuantConv2d(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=False,
        bits=bits,
        signed=False,
    )
    return [nn.ReLU(), convolution]


def _convolution(size: int, groups: int = 1, dilation: int = 1) -> OperationBuilder:
    def build(in_channels: int, out_channels: int, *, width: int, bits: Any) -> nn.Module:
        layers = relu_conv(in_channels, out_channels, (size, size), bits=bits, groups=groups, dilation=dilation)
        return nn.Sequential(*layers)

    return build


def _factorised(size: int) -> OperationBuilder:
    """k x 1 to the space's width, then 1 x k."""

    def build(in_channels: int, out_channels: int, *, width: int, bits: Any) -> nn.Module:
        return nn.Sequential(
            *relu_conv(in_channels, width, (size, 1), bits=bits), *relu_conv(width, out_channels, (1, size), bits=bits)
        )

    return build


for _size in (1, 3, 5):
    register_operation(f"conv_{_size}x{_size}")(_convolution(_size))
    for _groups in (2, 3):
        register_operation(f"conv_{_size}x{_size}_g{_groups}")(_convolution(_size, _groups))
for _size in (3, 5):
    register_operation(f"fac_{_size}x{_size}")(_factorised(_size))
register_operation("conv_3x3_d2")(_convolution(3, dilation=2))
register_operation("conv_3x3_g3_d2")(_convolution(3, groups=3, dilation=2))


def precision_label(block: str, operation: str) -> str:
    """NNI label of the precision of one candidate of a block."""
    return f"{block}__{operation}__bits"


def is_precision_label(label: str) -> bool:
    """Whether a label, as made by ``precision_label``, names a precision."""
    return label.endswith("__bits")


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
        width: the space's number of channels (inner width of factorised operations).
        bits: precisions that every candidate offers.

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
        if name not in OPERATIONS:
            raise unknown_name("operation", name, OPERATIONS)
        candidates[name] = functools.partial(_build, label, name, in_channels, out_channels, width, values)
    return ChoiceBlock(candidates, label=label)


def _build(label: str, name: str, in_channels: int, out_channels: int, width: int, values: list[Any]) -> nn.Module:
    choice = nni.choice(precision_label(label, name), values)
    try:
        return OPERATIONS[name](in_channels, out_channels, width=width, bits=choice)
    except InputError as error:
        raise InputError(f"operation {name!r} of block {label!r} is not possible: {error}") from error


def with_precision(choices: Mapping[str, Any], precision: Precision | int | str) -> dict[str, Any]:
    """The same choices with every precision replaced by ``precision``."""
    (value,) = precision_choices([precision])
    return {label: value if is_precision_label(label) else choice for label, choice in choices.items()}
