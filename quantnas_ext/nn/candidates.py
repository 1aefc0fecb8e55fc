"""The candidate operations of the SR spaces, registered by name.

An operation maps ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``. Every convolution in it is a ReLU followed
by a quantized convolution without bias that pads to the same size, with unsigned activations; one precision covers all
of them. The candidates are those of Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from quantnas_ext.errors import InputError
from quantnas_ext.nn.mutable_layers import MutableQuantConv2d
from quantnas_ext.nn.operations import OPERATIONS, operation_block, register_operation

__all__ = ["OPERATIONS", "RepeatedChannels", "operation_block", "register_operation", "relu_conv"]
"""The room's front takes the registry from here, where it has been filled."""


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


class RepeatedChannels(nn.Module):
    """The input several times along its channels: ``[N, C, H, W]`` to ``[N, times C, H, W]``.

    Args:
        times: how often.
    """

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        """``(x, x, ...)`` along the channels."""
        return torch.cat([x] * self.times, dim=1)

    def extra_repr(self) -> str:
        """What ``repr`` shows of it."""
        return f"{self.times}"


def _skip_connect(in_channels: int, out_channels: int, *, width: int, bits: Any) -> nn.Module:
    """The input itself; nothing in it is quantized, so it has no precision."""
    if in_channels != out_channels:
        raise InputError(
            f"an identity cannot lead from {in_channels} to {out_channels} channels; "
            "choose another operation where the number of channels changes"
        )
    return nn.Identity()


def _convolution(in_channels: int, out_channels: int, *, width: int, bits: Any, size: int, **others: int) -> nn.Module:
    """One k x k convolution, ``others`` as ``relu_conv``."""
    return nn.Sequential(*relu_conv(in_channels, out_channels, (size, size), bits=bits, **others))


def _depthwise(in_channels: int, out_channels: int, *, width: int, bits: Any, size: int) -> nn.Module:
    """One k x k convolution with a group for every input channel."""
    if out_channels % in_channels:
        raise InputError(
            f"a depthwise convolution cannot lead from {in_channels} to {out_channels} channels; "
            f"choose another operation where the output is no multiple of {in_channels} channels"
        )
    return nn.Sequential(*relu_conv(in_channels, out_channels, (size, size), bits=bits, groups=in_channels))


def _factorised(in_channels: int, out_channels: int, *, width: int, bits: Any, size: int) -> nn.Module:
    """k x 1 to the space's width, then 1 x k."""
    return nn.Sequential(
        *relu_conv(in_channels, width, (size, 1), bits=bits), *relu_conv(width, out_channels, (1, size), bits=bits)
    )


def _depthwise_separable(in_channels: int, out_channels: int, *, width: int, bits: Any, size: int) -> nn.Module:
    """k x k depthwise, then pointwise."""
    return nn.Sequential(
        *relu_conv(in_channels, in_channels, (size, size), bits=bits, groups=in_channels),
        *relu_conv(in_channels, out_channels, (1, 1), bits=bits),
    )


def _growth(in_channels: int, out_channels: int, *, width: int, bits: Any, size: int, rate: int) -> nn.Module:
    """k x k to ``rate`` times the space's width, then k x k."""
    return nn.Sequential(
        *relu_conv(in_channels, rate * width, (size, size), bits=bits),
        *relu_conv(rate * width, out_channels, (size, size), bits=bits),
    )


def _bottleneck(
    in_channels: int, out_channels: int, *, width: int, bits: Any, size: int, reduction: int, groups: int = 1
) -> nn.Module:
    """Three k x k convolutions with the space's width over ``reduction`` between them, all in ``groups`` groups."""
    if width % reduction:
        raise InputError(
            f"a width of {width} channels cannot be divided by {reduction}; "
            f"choose a width that is a multiple of {reduction * groups} or another operation"
        )
    channels = [in_channels, width // reduction, width // reduction, out_channels]
    layers: list[nn.Module] = []
    for before, after in zip(channels, channels[1:], strict=False):
        layers += relu_conv(before, after, (size, size), bits=bits, groups=groups)
    return nn.Sequential(*layers)


def _increase(in_channels: int, out_channels: int, *, width: int, bits: Any, size: int) -> nn.Module:
    """The input twice along its channels, then one k x k convolution."""
    return nn.Sequential(RepeatedChannels(2), *relu_conv(2 * in_channels, out_channels, (size, size), bits=bits))


def _decrease(in_channels: int, out_channels: int, *, width: int, bits: Any, size: int) -> nn.Module:
    """One k x k convolution to half the channels, then its output twice along the channels."""
    if out_channels % 2:
        raise InputError(
            f"an output of {out_channels} channels cannot be halved; choose an even number of channels "
            "or another operation"
        )
    return nn.Sequential(*relu_conv(in_channels, out_channels // 2, (size, size), bits=bits), RepeatedChannels(2))


def _register(name: str, build: Callable[..., nn.Module], **arguments: int) -> None:
    register_operation(name)(partial(build, **arguments))


register_operation("skip_connect", quantized=False)(_skip_connect)
for _size in (1, 3, 5):
    _kernel = f"{_size}x{_size}"
    _register(f"conv_{_kernel}", _convolution, size=_size)
    for _groups in (2, 3):
        _register(f"conv_{_kernel}_g{_groups}", _convolution, size=_size, groups=_groups)
    _register(f"conv_{_kernel}_dw", _depthwise, size=_size)
    for _rate in (1, 2):
        _register(f"growth{_rate}_{_kernel}", _growth, size=_size, rate=_rate)
    _register(f"increase_{_kernel}", _increase, size=_size)
    _register(f"decrease_{_kernel}", _decrease, size=_size)
for _size in (3, 5):
    _kernel = f"{_size}x{_size}"
    _register(f"fac_{_kernel}", _factorised, size=_size)
    _register(f"dws_{_kernel}", _depthwise_separable, size=_size)
    for _reduction in (2, 4, 8):
        _register(f"decenc_{_kernel}_{_reduction}", _bottleneck, size=_size, reduction=_reduction)
        _register(f"decenc_{_kernel}_{_reduction}_g3", _bottleneck, size=_size, reduction=_reduction, groups=3)
_register("conv_3x3_d2", _convolution, size=3, dilation=2)
_register("conv_3x3_g3_d2", _convolution, size=3, groups=3, dilation=2)
