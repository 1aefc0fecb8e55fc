from .agreement import agree_on_steps
from .hwgq import HWGQ_STEPS, HWGQActivationQuantizer
from .layers import (
    QuantConv2d,
    QuantLinear,
    quantized_layers,
    reset_steps,
    set_activation_quantizer,
    set_quantization,
    set_weight_quantizer,
    watch_steps,
)
from .lsq import initial_step, lsq_quantize
from .noise.additive import mixture_noise_scale, value_range
from .precision import FULL_PRECISION_BITS, Precision, precision_choices
from .protocol import (
    ACTIVATION_QUANTIZERS,
    WEIGHT_QUANTIZERS,
    ActivationQuantizer,
    Quantizer,
    WeightQuantizer,
    activation_quantizers,
    register_quantizer,
)
from .quantizers import LSQActivationQuantizer, LSQWeightQuantizer, without_observation
from .step_learning import give_steps_a_group, step_parameters

__all__ = [
    "ACTIVATION_QUANTIZERS",
    "WEIGHT_QUANTIZERS",
    "ActivationQuantizer",
    "FULL_PRECISION_BITS",
    "HWGQ_STEPS",
    "HWGQActivationQuantizer",
    "LSQActivationQuantizer",
    "LSQWeightQuantizer",
    "Precision",
    "activation_quantizers",
    "QuantConv2d",
    "QuantLinear",
    "Quantizer",
    "WeightQuantizer",
    "agree_on_steps",
    "give_steps_a_group",
    "initial_step",
    "lsq_quantize",
    "mixture_noise_scale",
    "precision_choices",
    "quantized_layers",
    "register_quantizer",
    "reset_steps",
    "set_activation_quantizer",
    "set_quantization",
    "set_weight_quantizer",
    "step_parameters",
    "value_range",
    "watch_steps",
    "without_observation",
]
