"""Quantized layers whose precision is an NNI choice."""

from __future__ import annotations

from typing import Any

from nni.mutable import Categorical, Mutable
from nni.nas.nn.pytorch import ParametrizedModule
from torch import nn

from quantnas_ext.quantization import Precision, QuantConv2d, QuantLinear


class _SearchedPrecision:
    """What the layers below share. NNI builds frozen layers from ``trace_kwargs``, so these hold what is changed."""

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """The concrete layer: of this one's device, dtype and mode, and unless a choice changed it of its state."""
        layer: Any = self
        concrete: nn.Module = super().freeze(sample)  # type: ignore[misc]
        concrete.to(layer.weight).train(layer.training)
        if not any(isinstance(value, Mutable) for value in layer.trace_kwargs.values()):
            concrete.load_state_dict(layer.state_dict())
        return concrete

    def offered_precisions(self) -> list[Precision]:
        """Every precision of the choice, where there is one."""
        layer: Any = self
        bits = getattr(layer, "trace_kwargs", {}).get("bits")
        return [Precision.parse(value) for value in bits.values] if isinstance(bits, Categorical) else [layer.precision]

    def use_weight_quantizer(self, kind: str) -> None:
        """As every quantized layer; frozen layers will, too."""
        super().use_weight_quantizer(kind)  # type: ignore[misc]
        self._trace("weight_quantizer", kind)

    def use_activation_quantizer(self, kind: str) -> None:
        """As every quantized layer; frozen layers will, too."""
        super().use_activation_quantizer(kind)  # type: ignore[misc]
        self._trace("activation_quantizer", kind)

    def _trace(self, argument: str, kind: str) -> None:
        layer: Any = self
        if hasattr(layer, "trace_kwargs"):
            layer.trace_kwargs[argument] = kind


class MutableQuantConv2d(  # type: ignore[misc]
    _SearchedPrecision,
    ParametrizedModule,
    QuantConv2d,
    wraps=QuantConv2d,  # type: ignore[call-arg]
):
    """``QuantConv2d`` that takes ``bits=nni.choice(label, [4, 8])``.

    Frozen with a sample, or built inside ``model_context``, it becomes a ``QuantConv2d`` of the chosen precision. One
    that has nothing to choose keeps its weights and steps when it is frozen.
    """


class MutableQuantLinear(  # type: ignore[misc]
    _SearchedPrecision,
    ParametrizedModule,
    QuantLinear,
    wraps=QuantLinear,  # type: ignore[call-arg]
):
    """``QuantLinear`` that takes ``bits=nni.choice(label, [4, 8])``, likewise."""


def searched_precision(module: nn.Module) -> Any | None:
    """The NNI choice of a layer's precision, or None where the precision is fixed or there is none.

    It is the ``bits`` of a layer with traced arguments, or the ``bits_choice`` of what stands for it in a supernet.
    """
    if isinstance(module, ParametrizedModule):
        bits = getattr(module, "trace_kwargs", {}).get("bits")
    else:
        bits = getattr(module, "bits_choice", None)
    return bits if isinstance(bits, Mutable) else None
