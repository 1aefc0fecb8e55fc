"""What model spaces are made of: precision-mutable layers, candidate operations, choice blocks, residuals."""

from quantnas_ext.compat import prepare_nni

prepare_nni()

from quantnas_ext.nn.arithmetic import Add, Concatenate, Multiply  # noqa: E402
from quantnas_ext.nn.candidates import RepeatedChannels, relu_conv  # noqa: E402
from quantnas_ext.nn.choice_block import ChoiceBlock, SharedInput  # noqa: E402
from quantnas_ext.nn.esa import ESA  # noqa: E402
from quantnas_ext.nn.mutable_layers import MutableQuantConv2d, MutableQuantLinear  # noqa: E402
from quantnas_ext.nn.operations import OPERATIONS, operation_block, register_operation  # noqa: E402
from quantnas_ext.nn.residual import AdaDMResidual, ADQResidual, Residual, residual  # noqa: E402

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
