from .arithmetic import Add, Concatenate, Multiply
from .candidates import OPERATIONS, RepeatedChannels, operation_block, register_operation, relu_conv
from .choice_block import ChoiceBlock, SharedInput
from .esa import ESA
from .mutable_layers import MutableQuantConv2d, MutableQuantLinear
from .residual import AdaDMResidual, ADQResidual, Residual, residual

__all__ = [
    "ESA",
    "OPERATIONS",
    "ADQResidual",
    "Add",
    "AdaDMResidual",
    "ChoiceBlock",
    "Concatenate",
    "Multiply",
    "MutableQuantConv2d",
    "MutableQuantLinear",
    "RepeatedChannels",
    "Residual",
    "SharedInput",
    "operation_block",
    "register_operation",
    "relu_conv",
    "residual",
]
