"""Quantization in pure torch: precisions, LSQ quantizers, quantized layers, quantization noise."""

from quantnas_ext.quantization.layers import QuantConv2d, QuantLinear, quantized_layers, reset_steps, set_quantization
from quantnas_ext.quantization.lsq import initial_step, lsq_quantize
from quantnas_ext.quantization.noise import add_quantization_noise, mixture_noise_scale, value_range
from quantnas_ext.quantization.precision import FULL_PRECISION_BITS, Precision, precision_choices
from quantnas_ext.quantization.quantizers import LSQActivationQuantizer, LSQWeightQuantizer

__all__ = [
    "FULL_PRECISION_BITS",
    "LSQActivationQuantizer",
    "LSQWeightQuantizer",
    "Precision",
    "QuantConv2d",
    "QuantLinear",
    "add_quantization_noise",
    "initial_step",
    "lsq_quantize",
    "mixture_noise_scale",
    "precision_choices",
    "quantized_layers",
    "reset_steps",
    "set_quantization",
    "value_range",
]
