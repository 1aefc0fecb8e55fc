"""Concrete quantized layers: ordinary layers with two quantizers plugged in, never with an activation inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.quantization.hwgq import HWGQActivationQuantizer
from quantnas_ext.quantization.precision import FULL_PRECISION_BITS, Precision
from quantnas_ext.quantization.quantizers import LSQActivationQuantizer, LSQWeightQuantizer, activation_quantizers

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
"""What a convolution reads beyond the edges of its input."""

ACTIVATION_QUANTIZERS = ("lsq", "hwgq")
"""Kinds of activation quantizers: of a learned step, and of a fixed one for inputs that are never negative."""


def make_activation_quantizer(kind: str, bits: int, *, signed: bool) -> nn.Module:
    """The quantizer of a layer's input; an identity for 32 bits.

    Args:
        kind: one of ``ACTIVATION_QUANTIZERS``.
        bits: of the activations.
        signed: whether inputs can be negative.

    Raises:
        InputError: for an unknown kind, or where HWGQ has no step for the bits or inputs can be negative.
    """
    _check_kind(kind)
    if kind == "hwgq" and signed:
        raise InputError(
            "activation quantizer hwgq is for inputs that are never negative, as behind a ReLU; "
            "use signed=False there, or activation quantizer lsq"
        )
    if bits == FULL_PRECISION_BITS:
        return nn.Identity()
    return HWGQActivationQuantizer(bits) if kind == "hwgq" else LSQActivationQuantizer(bits, signed=signed)


def _check_kind(kind: object) -> None:
    if not isinstance(kind, str) or kind not in ACTIVATION_QUANTIZERS:
        raise unknown_name("activation quantizer", kind, ACTIVATION_QUANTIZERS)


class QuantizedLayer(nn.Module):
    """What ``QuantConv2d`` and ``QuantLinear`` share: their precision, quantizers and effective parameters."""

    weight: Any
    bias: Any
    precision: Precision
    signed: bool
    activation_kind: str
    weight_quantizer: nn.Module
    activation_quantizer: nn.Module
    quantized: bool

    def _plug_in(self, bits: Precision | int | str | Sequence[int], signed: bool, activation_kind: str) -> None:
        self.precision = Precision.parse(bits)
        self.signed = signed
        self.activation_kind = activation_kind
        self.quantized = True
        weight_bits, activation_bits = self.precision.weight_bits, self.precision.activation_bits
        self.weight_quantizer = (
            nn.Identity() if weight_bits == FULL_PRECISION_BITS else LSQWeightQuantizer(weight_bits, self.weight.shape)
        )
        self.activation_quantizer = make_activation_quantizer(activation_kind, activation_bits, signed=signed)
        self.reset_steps()

    def use_activation_quantizer(self, kind: str) -> None:
        """Replace the activation quantizer by a new one of a kind.

        Raises:
            InputError: as ``make_activation_quantizer``; the layer is then as it was.
        """
        self.activation_quantizer = make_activation_quantizer(kind, self.precision.activation_bits, signed=self.signed)
        self.activation_kind = kind

    def reset_steps(self) -> None:
        """Start the weight steps anew from the present weight; activation steps restart from the next batches."""
        if isinstance(self.weight_quantizer, LSQWeightQuantizer):
            self.weight_quantizer.reset(self.weight)
        if isinstance(self.activation_quantizer, LSQActivationQuantizer):
            self.activation_quantizer.reset()

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, weight and bias as the layer computes with them.

        The bias sits on the grid ``s_w * s_x`` that an integer accumulator has, wherever both are quantized, so that
        training sees what integer inference will compute.
        """
        if not self.quantized:
            return x, self.weight, self.bias
        quantized, weight, bias = self.activation_quantizer(x), self.weight_quantizer(self.weight), self.bias
        if bias is not None and isinstance(self.weight_quantizer, LSQWeightQuantizer):
            step = self._input_step(x)
            if step is not None:
                # In float32 at least: the product of two steps has no place in half precision.
                grid = (self.weight_quantizer.step.flatten() * step).detach()
                bias = bias + ((bias / grid).round() * grid - bias).detach().to(bias.dtype)
        return quantized, weight, bias

    def _input_step(self, x: Tensor) -> Tensor | None:
        """The step that the input was just quantized with; None where it was not."""
        if isinstance(self.activation_quantizer, LSQActivationQuantizer):
            return self.activation_quantizer.step_for(x)
        if isinstance(self.activation_quantizer, HWGQActivationQuantizer):
            return self.activation_quantizer.step
        return None


class QuantConv2d(nn.Conv2d, QuantizedLayer):
    """A convolution whose weights (LSQ, per output channel) and inputs (per tensor) are fake-quantized.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as ``torch.nn.Conv2d``.
        bits: precision in any form that ``Precision.parse`` reads; 32 bits means no rounding and no quantizer at all.
        signed: whether inputs can be negative; False after a ReLU.
        activation_quantizer: ``"lsq"``, or ``"hwgq"`` for the fixed steps of HWGQ, where inputs are not signed.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``, as ``torch.nn.Conv2d``. It repeats
            quantized values, which are those of a padded input that is quantized.

    Raises:
        InputError: for an impossible precision, an unknown padding mode, or as ``make_activation_quantizer``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        bits: Any = 8,
        signed: bool = True,
        activation_quantizer: str = "lsq",
        padding_mode: str = "zeros",
    ) -> None:
        if padding_mode not in PADDING_MODES:
            raise unknown_name("padding mode", padding_mode, PADDING_MODES)
        mode: Any = padding_mode
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, mode)
        self._plug_in(bits, signed, activation_quantizer)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` to ``[N, C_out, H', W']``."""
        return self._conv_forward(*self.operands(x))

    def extra_repr(self) -> str:
        """What ``repr`` shows of it."""
        return f"{super().extra_repr()}, bits={self.precision}"


class QuantLinear(nn.Linear, QuantizedLayer):
    """A linear layer whose weights (LSQ, per output feature) and inputs (per tensor) are fake-quantized.

    Args:
        in_features, out_features, bias: as ``torch.nn.Linear``.
        bits: precision in any form that ``Precision.parse`` reads; 32 bits means no rounding and no quantizer at all.
        signed: whether inputs can be negative; False after a ReLU.
        activation_quantizer: ``"lsq"``, or ``"hwgq"`` for the fixed steps of HWGQ, where inputs are not signed.

    Raises:
        InputError: for an impossible precision, or as ``make_activation_quantizer``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        bits: Any = 8,
        signed: bool = True,
        activation_quantizer: str = "lsq",
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self._plug_in(bits, signed, activation_quantizer)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, ..., in_features]`` to ``[N, ..., out_features]``."""
        return F.linear(*self.operands(x))

    def extra_repr(self) -> str:
        """What ``repr`` shows of it."""
        return f"{super().extra_repr()}, bits={self.precision}"


def quantized_layers(model: nn.Module) -> Iterator[QuantizedLayer]:
    """Every ``QuantConv2d`` and ``QuantLinear`` of a model."""
    return (module for module in model.modules() if isinstance(module, QuantizedLayer))


def set_quantization(model: nn.Module, enabled: bool) -> None:
    """Turn the quantizers of all layers of a model on, or off (the layers then compute in full precision)."""
    for layer in quantized_layers(model):
        layer.quantized = enabled


def set_activation_quantizer(model: nn.Module, kind: str) -> None:
    """Give all layers of a model or space whose inputs are never negative a new activation quantizer of a kind.

    Layers with signed inputs keep LSQ.

    Args:
        model: changed in place; precisions may still be choices.
        kind: ``"lsq"`` or ``"hwgq"``.

    Raises:
        InputError: for an unknown kind, or where HWGQ has no step for the bits that a layer has or offers.
    """
    _check_kind(kind)
    for layer in quantized_layers(model):
        if not layer.signed and layer.activation_kind != kind:
            layer.use_activation_quantizer(kind)


@torch.no_grad()
def reset_steps(model: nn.Module) -> None:
    """Restart all steps: weights' from their present values, activations' from the next batches."""
    for layer in quantized_layers(model):
        layer.reset_steps()


@torch.no_grad()
def watch_steps(model: nn.Module) -> None:
    """Make the steps of trained weights ready for a training, whose images may be others than they were found on.

    Activation steps that have started are watched (``LSQActivationQuantizer.watch``). Weight steps are right or wrong
    whatever the images, so those that are far off start anew at once.
    """
    for quantizer in activation_quantizers(model):
        quantizer.watch()
    for layer in quantized_layers(model):
        if isinstance(layer.weight_quantizer, LSQWeightQuantizer):
            layer.weight_quantizer.mend(layer.weight)
