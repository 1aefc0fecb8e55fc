"""Quantization in pure torch: precisions, LSQ and HWGQ quantizers, quantized layers, quantization noise."""

from quantnas_ext.quantization.hwgq import HWGQ_STEPS, HWGQActivationQuantizer
from quantnas_ext.quantization.layers import (
    ACTIVATION_QUANTIZERS,
    QuantConv2d,
    QuantLinear,
    make_activation_quantizer,
    quantized_layers,
    reset_steps,
    set_activation_quantizer,
    set_quantization,
)
from quantnas_ext.quantization.lsq import initial_step, lsq_quantize
from quantnas_ext.quantization.noise import add_quantization_noise, mixture_noise_scale, value_range
from quantnas_ext.quantization.precision import FULL_PRECISION_BITS, Precision, precision_choices
from quantnas_ext.quantization.quantizers import LSQActivationQuantizer, LSQWeightQuantizer

__all__ = [
    "ACTIVATION_QUANTIZERS",
    "FULL_PRECISION_BITS",
    "HWGQ_STEPS",
    "HWGQActivationQuantizer",
    "LSQActivationQuantizer",
    "LSQWeightQuantizer",
    "Precision",
    "QuantConv2d",
    "QuantLinear",
    "add_quantization_noise",
    "initial_step",
    "lsq_quantize",
    "make_activation_quantizer",
    "mixture_noise_scale",
    "precision_choices",
    "quantized_layers",
    "reset_steps",
    "set_activation_quantizer",
    "set_quantization",
    "value_range",
]
