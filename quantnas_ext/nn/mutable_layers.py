"""Quantized layers whose precision is an NNI choice."""

from __future__ import annotations

from nni.nas.nn.pytorch import ParametrizedModule

from quantnas_ext.quantization import QuantConv2d, QuantLinear


class MutableQuantConv2d(ParametrizedModule, QuantConv2d, wraps=QuantConv2d):  # type: ignore[misc, call-arg]
    """``QuantConv2d`` that takes ``bits=nni.choice(label, [4, 8])``.

    Frozen with a sample, or built inside ``model_context``, it becomes a ``QuantConv2d`` of the chosen precision.
    """


class MutableQuantLinear(ParametrizedModule, QuantLinear, wraps=QuantLinear):  # type: ignore[misc, call-arg]
    """``QuantLinear`` that takes ``bits=nni.choice(label, [4, 8])``.

    Frozen with a sample, or built inside ``model_context``, it becomes a ``QuantLinear`` of the chosen precision.
    """
