"""Concrete quantized layers: ordinary layers with two quantizers plugged in, never with an activation inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantnas_ext.errors import unknown_name
from quantnas_ext.quantization import hwgq, quantizers  # noqa: F401 (they register themselves)
from quantnas_ext.quantization.precision import FULL_PRECISION_BITS, Precision
from quantnas_ext.quantization.protocol import (
    ACTIVATION_QUANTIZERS,
    DEFAULT,
    WEIGHT_QUANTIZERS,
    ActivationQuantizer,
    WeightQuantizer,
    activation_quantizers,
)

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
"""What a convolution reads beyond the edges of its input."""


class QuantizedLayer(nn.Module):
    """What ``QuantConv2d`` and ``QuantLinear`` share: their precision, quantizers and effective parameters."""

    weight: Any
    bias: Any
    precision: Precision
    signed: bool
    weight_kind: str
    activation_kind: str
    weight_quantizer: nn.Module
    activation_quantizer: nn.Module
    quantized: bool

    def _plug_in(
        self, bits: Precision | int | str | Sequence[int], signed: bool, weight_kind: str, activation_kind: str
    ) -> None:
        self.precision, self.signed, self.quantized = Precision.parse(bits), signed, True
        self.use_weight_quantizer(weight_kind)
        self.use_activation_quantizer(activation_kind)

    def offered_precisions(self) -> list[Precision]:
        """The precisions that the layer can have."""
        return [self.precision]

    def use_weight_quantizer(self, kind: str) -> None:
        """Use a new weight quantizer of a kind, started from the present weight; an identity for 32 bits.

        Raises:
            InputError: for an unknown kind, or one that has no such quantizer for a precision that the layer can have;
                the layer is then as it was.
        """
        quantizer = WEIGHT_QUANTIZERS.find(kind)
        for precision in self.offered_precisions():
            quantizer.check(precision.weight_bits, signed=True)
        bits, self.weight_kind = self.precision.weight_bits, kind
        self.weight_quantizer = nn.Identity() if bits == FULL_PRECISION_BITS else quantizer(bits, self.weight.shape)
        self._reset_weight_steps()

    def use_activation_quantizer(self, kind: str) -> None:
        """Use a new activation quantizer of a kind; an identity for 32 bits.

        Raises:
            InputError: as ``use_weight_quantizer``.
        """
        quantizer = ACTIVATION_QUANTIZERS.find(kind)
        for precision in self.offered_precisions():
            quantizer.check(precision.activation_bits, signed=self.signed)
        bits, self.activation_kind = self.precision.activation_bits, kind
        full = bits == FULL_PRECISION_BITS
        self.activation_quantizer = nn.Identity() if full else quantizer(bits, signed=self.signed)

    def reset_steps(self) -> None:
        """Start the weight steps anew from the present weight; activation steps restart from the next batches."""
        self._reset_weight_steps()
        if isinstance(self.activation_quantizer, ActivationQuantizer):
            self.activation_quantizer.reset()

    def _reset_weight_steps(self) -> None:
        if isinstance(self.weight_quantizer, WeightQuantizer):
            self.weight_quantizer.reset(self.weight)

    def extra_repr(self) -> str:
        """What ``repr`` shows of it."""
        return f"{super().extra_repr()}, bits={self.precision}"

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, weight and bias as the layer computes with them.

        The bias sits on the grid ``s_w * s_x`` that an integer accumulator has, wherever both are quantized, so that
        training sees what integer inference will compute.
        """
        if not self.quantized:
            return x, self.weight, self.bias
        quantized, weight, bias = self.activation_quantizer(x), self.weight_quantizer(self.weight), self.bias
        of_weight, of_input = self.weight_quantizer, self.activation_quantizer
        if bias is not None and isinstance(of_weight, WeightQuantizer) and isinstance(of_input, ActivationQuantizer):
            weight_step, input_step = of_weight.step_for(self.weight), of_input.step_for(x)
            if weight_step is not None and input_step is not None:
                # In float32 at least: the product of two steps has no place in half precision.
                grid = (weight_step.flatten() * input_step).detach()
                bias = bias + ((bias / grid).round() * grid - bias).detach().to(bias.dtype)
        return quantized, weight, bias


class QuantConv2d(QuantizedLayer, nn.Conv2d):
    """A convolution whose weights and inputs are fake-quantized.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as ``torch.nn.Conv2d``.
        bits: precision in any form that ``Precision.parse`` reads; 32 bits means no rounding and no quantizer at all.
        signed: whether inputs can be negative; False after a ReLU.
        activation_quantizer: one of ``ACTIVATION_QUANTIZERS``: ``"lsq"`` with one learned step, ``"hwgq"`` with a fixed
            one where inputs are not signed, or a registered one.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``, as ``torch.nn.Conv2d``. It repeats
            quantized values, which are those of a padded input that is quantized.
        weight_quantizer: one of ``WEIGHT_QUANTIZERS``; ``"lsq"`` has a learned step for each output channel.

    Raises:
        InputError: for an impossible precision, an unknown padding mode, or a quantizer that is unknown or has no such
            bits or signs.
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
        activation_quantizer: str = DEFAULT,
        padding_mode: str = "zeros",
        weight_quantizer: str = DEFAULT,
    ) -> None:
        if padding_mode not in PADDING_MODES:
            raise unknown_name("padding mode", padding_mode, PADDING_MODES)
        mode: Any = padding_mode
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, mode)
        self._plug_in(bits, signed, weight_quantizer, activation_quantizer)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` to ``[N, C_out, H', W']``."""
        return self._conv_forward(*self.operands(x))


class QuantLinear(QuantizedLayer, nn.Linear):
    """A linear layer whose weights and inputs are fake-quantized.

    Args:
        in_features, out_features, bias: as ``torch.nn.Linear``.
        bits: precision in any form that ``Precision.parse`` reads; 32 bits means no rounding and no quantizer at all.
        signed: whether inputs can be negative; False after a ReLU.
        activation_quantizer: one of ``ACTIVATION_QUANTIZERS``.
        weight_quantizer: one of ``WEIGHT_QUANTIZERS``; ``"lsq"`` has a learned step for each output feature.

    Raises:
        InputError: as ``QuantConv2d``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        bits: Any = 8,
        signed: bool = True,
        activation_quantizer: str = DEFAULT,
        weight_quantizer: str = DEFAULT,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self._plug_in(bits, signed, weight_quantizer, activation_quantizer)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, ..., in_features]`` to ``[N, ..., out_features]``."""
        return F.linear(*self.operands(x))


def quantized_layers(model: nn.Module) -> Iterator[QuantizedLayer]:
    """Every ``QuantConv2d`` and ``QuantLinear`` of a model."""
    return (module for module in model.modules() if isinstance(module, QuantizedLayer))


def set_quantization(model: nn.Module, enabled: bool) -> None:
    """Turn the quantizers of all layers of a model on, or off (the layers then compute in full precision)."""
    for layer in quantized_layers(model):
        layer.quantized = enabled


def set_activation_quantizer(model: nn.Module, kind: str) -> None:
    """Give all layers of a model or space a new activation quantizer of a kind.

    Layers whose inputs can be negative keep what they have if the kind does not take such inputs.

    Args:
        model: changed in place; precisions may still be choices.
        kind: one of ``ACTIVATION_QUANTIZERS``.

    Raises:
        InputError: for an unknown kind, or one without a quantizer for the bits that a layer has or offers.
    """
    takes_signed = ACTIVATION_QUANTIZERS.find(kind).takes_signed
    for layer in quantized_layers(model):
        if layer.activation_kind != kind and (takes_signed or not layer.signed):
            layer.use_activation_quantizer(kind)


def set_weight_quantizer(model: nn.Module, kind: str) -> None:
    """Give all layers of a model or space a new weight quantizer of a kind, as ``set_activation_quantizer``."""
    WEIGHT_QUANTIZERS.find(kind)
    for layer in quantized_layers(model):
        if layer.weight_kind != kind:
            layer.use_weight_quantizer(kind)


@torch.no_grad()
def reset_steps(model: nn.Module) -> None:
    """Restart all steps: weights' from their present values, activations' from the next batches."""
    for layer in quantized_layers(model):
        layer.reset_steps()


@torch.no_grad()
def watch_steps(model: nn.Module) -> None:
    """Make the steps of trained weights ready for a training, whose images may be others than they were found on.

    Activation steps that have started are watched (``ActivationQuantizer.watch``). Weight steps are right or wrong
    whatever the images, so those that are far off start anew at once.
    """
    for quantizer in activation_quantizers(model):
        quantizer.watch()
    for layer in quantized_layers(model):
        if isinstance(layer.weight_quantizer, WeightQuantizer):
            layer.weight_quantizer.mend(layer.weight)
