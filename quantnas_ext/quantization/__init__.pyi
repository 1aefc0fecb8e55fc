from .agreement import agree_on_steps
from .hwgq import HWGQ_STEPS, HWGQActivationQuantizer
from .layers import (
    ACTIVATION_QUANTIZERS,
    QuantConv2d,
    QuantLinear,
    make_activation_quantizer,
    quantized_layers,
    reset_steps,
    set_activation_quantizer,
    set_quantization,
    watch_steps,
)
from .lsq import initial_step, lsq_quantize
from .noise.additive import add_quantization_noise, mixture_noise_scale, value_range
from .precision import FULL_PRECISION_BITS, Precision, precision_choices
from .quantizers import (
    LSQActivationQuantizer,
    LSQWeightQuantizer,
    activation_quantizers,
    without_observation,
)
from .step_learning import give_steps_a_group, step_parameters

__all__ = [
    "ACTIVATION_QUANTIZERS",
    "FULL_PRECISION_BITS",
    "HWGQ_STEPS",
    "HWGQActivationQuantizer",
    "LSQActivationQuantizer",
    "LSQWeightQuantizer",
    "Precision",
    "activation_quantizers",
    "QuantConv2d",
    "QuantLinear",
    "add_quantization_noise",
    "agree_on_steps",
    "give_steps_a_group",
    "initial_step",
    "lsq_quantize",
    "make_activation_quantizer",
    "mixture_noise_scale",
    "precision_choices",
    "quantized_layers",
    "reset_steps",
    "set_activation_quantizer",
    "set_quantization",
    "step_parameters",
    "value_range",
    "watch_steps",
    "without_observation",
]
