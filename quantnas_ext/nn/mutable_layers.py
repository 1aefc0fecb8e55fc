"""Quantized layers whose precision is an NNI choice."""

from __future__ import annotations

from typing import Any

from nni.mutable import Mutable
from nni.nas.nn.pytorch import ParametrizedModule
from torch import nn

from quantnas_ext.quantization import QuantConv2d, QuantLinear


class MutableQuantConv2d(ParametrizedModule, QuantConv2d, wraps=QuantConv2d):  # type: ignore[misc, call-arg]
    """``QuantConv2d`` that takes ``bits=nni.choice(label, [4, 8])``.

    Frozen with a sample, or built inside ``model_context``, it becomes a ``QuantConv2d`` of the chosen precision. One
    that has nothing to choose keeps its weights and steps when it is frozen.
    """

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """The concrete layer."""
        return _with_state(self, super().freeze(sample))


class MutableQuantLinear(ParametrizedModule, QuantLinear, wraps=QuantLinear):  # type: ignore[misc, call-arg]
    """``QuantLinear`` that takes ``bits=nni.choice(label, [4, 8])``.

    Frozen with a sample, or built inside ``model_context``, it becomes a ``QuantLinear`` of the chosen precision. One
    that has nothing to choose keeps its weights and steps when it is frozen.
    """

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """The concrete layer."""
        return _with_state(self, super().freeze(sample))


def _with_state(layer: Any, concrete: nn.Module) -> nn.Module:
    """``concrete`` with the state of the layer it comes from, unless a choice has changed what that is."""
    if not any(isinstance(value, Mutable) for value in layer.trace_kwargs.values()):
        concrete.load_state_dict(layer.state_dict())
    return concrete
