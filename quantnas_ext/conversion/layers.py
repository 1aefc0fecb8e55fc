"""Which layers can have a precision, and the layer that one becomes."""

from __future__ import annotations

from typing import Any

import torch
from nni.mutable import Mutable
from nni.nas.nn.pytorch import ParametrizedModule
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from quantnas_ext.nn.mutable_layers import MutableQuantConv2d, MutableQuantLinear
from quantnas_ext.quantization.layers import QuantConv2d, QuantLinear

PLAIN = ("timm.layers.linear.Linear",)
"""Classes with a forward pass of their own that computes what torch's does."""


def _name(layer: nn.Module) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def why_not(layer: nn.Module) -> str | None:
    """Why a layer that multiplies cannot have a precision; None where it can."""
    if isinstance(layer, ParametrizedModule):
        searched = [name for name, value in layer.trace_kwargs.items() if isinstance(value, Mutable)]
        if searched:
            return f"its {' and '.join(searched)} {'is' if len(searched) == 1 else 'are'} searched"
    kind: type[Any] = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
    if not isinstance(layer, kind):
        return f"there is no quantized {type(layer).__name__}"
    if (type(layer).forward is not kind.forward and _name(layer) not in PLAIN) or (
        kind is nn.Conv2d and type(layer)._conv_forward is not nn.Conv2d._conv_forward  # type: ignore[attr-defined]
    ):
        return f"{type(layer).__name__} computes in a way of its own"
    if is_parametrized(layer) or "weight" not in layer._parameters:
        return "its weight is made from other parameters, as weight norm does"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "it has hooks"
    return None


def with_precision(layer: nn.Module, bits: Any, *, signed: bool) -> nn.Module:
    """The layer with a precision: the same parameter objects, arguments, device and mode.

    Args:
        layer: an ``nn.Conv2d`` or ``nn.Linear`` for which ``why_not`` is None.
        bits: an NNI choice, or a precision that is fixed.
        signed: whether inputs can be negative.

    Returns:
        A mutable layer; in ``model_context`` the quantized layer of the context's sample.
    """
    made: QuantConv2d | QuantLinear
    with torch.random.fork_rng(devices=[]):  # it starts at random before it takes the parameters over
        if isinstance(layer, nn.Conv2d):
            names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
            geometry: dict[str, Any] = {name: getattr(layer, name) for name in (*names, "padding_mode")}
            made = MutableQuantConv2d(**geometry, bias=layer.bias is not None, bits=bits, signed=signed)
        else:
            assert isinstance(layer, nn.Linear)
            made = MutableQuantLinear(
                in_features=layer.in_features,
                out_features=layer.out_features,
                bias=layer.bias is not None,
                bits=bits,
                signed=signed,
            )
    made.to(layer.weight.device, layer.weight.dtype)
    made.weight, made.bias = layer.weight, layer.bias
    made.reset_steps()
    return made.train(layer.training)
