"""Quantized layers whose precision is an NNI choice."""

from __future__ import annotations

from typing import Any

from nni.mutable import Categorical, Mutable
from nni.nas.nn.pytorch import ParametrizedModule
from torch import nn

from quantnas_ext.quantization import Precision, QuantConv2d, QuantLinear, make_activation_quantizer


class _Mutable:
    """What both layers do about their choices."""

    trace_kwargs: dict[str, Any]
    signed: bool

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """The concrete layer."""
        return _with_state(self, super().freeze(sample))  # type: ignore[misc]

    def use_activation_quantizer(self, kind: str) -> None:
        """Use quantizers of a kind at every precision on offer; frozen layers will, too.

        Raises:
            InputError: as ``make_activation_quantizer`` for any of them; the layer is then as it was.
        """
        bits = self.trace_kwargs.get("bits")
        for value in bits.values if isinstance(bits, Categorical) else ():
            make_activation_quantizer(kind, Precision.parse(value).activation_bits, signed=self.signed)
        super().use_activation_quantizer(kind)  # type: ignore[misc]
        self.trace_kwargs["activation_quantizer"] = kind  # which NNI builds frozen layers from


class MutableQuantConv2d(_Mutable, ParametrizedModule, QuantConv2d, wraps=QuantConv2d):  # type: ignore[misc, call-arg]
    """``QuantConv2d`` that takes ``bits=nni.choice(label, [4, 8])``.

    Frozen with a sample, or built inside ``model_context``, it becomes a ``QuantConv2d`` of the chosen precision. One
    that has nothing to choose keeps its weights and steps when it is frozen.
    """


class MutableQuantLinear(_Mutable, ParametrizedModule, QuantLinear, wraps=QuantLinear):  # type: ignore[misc, call-arg]
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


def _with_state(layer: Any, concrete: nn.Module) -> nn.Module:
    """``concrete`` as the layer it comes from: its device, dtype and mode, and unless a choice changed it its state."""
    concrete.to(layer.weight).train(layer.training)
    if not any(isinstance(value, Mutable) for value in layer.trace_kwargs.values()):
        concrete.load_state_dict(layer.state_dict())
    return concrete
