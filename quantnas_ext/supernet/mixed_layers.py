"""Layers of undecided precision: quantization noise, or every precision computed and mixed."""

from __future__ import annotations

from typing import Any, cast

import torch
from nni.mutable import Categorical, Mutable
from nni.nas.nn.pytorch import ParametrizedModule
from torch import Tensor, nn
from torch.nn import functional as F

from quantnas_ext.errors import InputError
from quantnas_ext.nn.mutable_layers import MutableQuantConv2d, MutableQuantLinear, searched_precision
from quantnas_ext.quantization import FULL_PRECISION_BITS, Precision, QuantConv2d, QuantLinear, value_range
from quantnas_ext.quantization.noise.additive import add_noise, in_two_parts, kept_for_training
from quantnas_ext.quantization.noise.convolution import Geometry, Noise, autocast_dtype, beside, noisy_conv2d
from quantnas_ext.quantization.protocol import DEFAULT
from quantnas_ext.supernet.context import SupernetContext
from quantnas_ext.supernet.layer_choice import SupernetModule
from quantnas_ext.supernet.layer_input import FULL_PRECISION, LayerInput


class MixedQuantLayer(SupernetModule):
    """What ``MixedQuantConv2d`` and ``MixedQuantLinear`` share: quantization under a distribution over precisions.

    With noise, input and weight get additive noise whose scale follows from the probabilities of the precisions, in
    training mode only; in evaluation mode the layer computes in full precision. With direct quantization the output is
    the mixture of all precisions' outputs in both modes.
    """

    weight: Any
    bias: Any
    concrete: type[QuantConv2d | QuantLinear]
    mutable: type[Any]

    def _take_over(self, layer: Any, context: SupernetContext) -> None:
        """Become the supernet's version of a mutable layer, with its parameters."""
        self.weight, self.bias = layer.weight, layer.bias
        self.arguments: dict[str, Any] = dict(layer.args)
        self.bits_choice: Categorical = self.add_mutable(self.arguments["bits"])
        self._context = (context,)
        self._weight_span: tuple[Any, Tensor] | None = None
        self.precisions = [Precision.parse(value) for value in self.bits_choice.values]
        self.weight_kind: str = self.arguments["weight_quantizer"]
        self.activation_kind: str = self.arguments["activation_quantizer"]
        context.declare(self.bits_choice.label, self.precisions)
        self.row = context.distribution.rows[self.bits_choice.label]
        self._noisy_weights, self._noisy_inputs = context.is_noisy(self.bits_choice.label)
        mode = context.quantization.mode
        self.direct = mode in ("direct", "direct_separate")
        self.other_weights = nn.ParameterList()
        self.weight_quantizers = nn.ModuleList()
        self.activation_quantizers = nn.ModuleDict()
        if mode == "direct_separate":
            self.other_weights.extend(nn.Parameter(self.weight.detach().clone()) for _ in self.precisions[1:])
        if self.direct:
            for index in range(len(self.precisions)):
                like = self._concrete(index)
                self.weight_quantizers.append(like.weight_quantizer)
                name = self.quantizer_name(index)
                if name != FULL_PRECISION and name not in self.activation_quantizers:
                    self.activation_quantizers[name] = like.activation_quantizer

    @classmethod
    def mutate(
        cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]
    ) -> MixedQuantLayer | None:
        """NNI mutation hook."""
        if not isinstance(module, cls.mutable):
            return None
        arguments = cast(ParametrizedModule, module).trace_kwargs
        others = [key for key, value in arguments.items() if key != "bits" and isinstance(value, Mutable)]
        if others:
            raise InputError(
                f"layer {name!r} searches its {', '.join(others)}; only bits can be searched in a quantized layer: "
                "write the alternatives as candidates of a LayerChoice"
            )
        if searched_precision(module) is None:
            return None
        return cls(module, mutate_kwargs["context"])

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """The concrete layer of the chosen precision, with the weights of that precision.

        After direct quantization its quantizers are those of the search; else its steps start from the weights.
        """
        self.validate(sample)
        index = self.bits_choice.values.index(self.bits_choice.freeze(sample))
        layer = self._concrete(index).train(self.training)
        if self.direct:
            layer.weight_quantizer.load_state_dict(self.weight_quantizers[index].state_dict())
            name = self.quantizer_name(index)
            if name != FULL_PRECISION:
                layer.activation_quantizer.load_state_dict(self.activation_quantizers[name].state_dict())
        return layer

    def _concrete(self, index: int) -> Any:
        """The concrete layer of one precision with its weight."""
        layer = self.concrete(**{**self.arguments, "bits": self.precisions[index]}).to(self.weight)
        with torch.no_grad():
            layer.weight.copy_(self.weight_of(index))
            if layer.bias is not None and self.bias is not None:
                layer.bias.copy_(self.bias)
        layer.reset_steps()
        return layer

    def weight_of(self, index: int) -> Tensor:
        """The weight of a precision, by its place among the values of the choice."""
        if index == 0 or not len(self.other_weights):
            return cast(Tensor, self.weight)
        return self.other_weights[index - 1]

    def quantizer_name(self, index: int) -> str:
        """Name of a precision's activation quantizer; precisions of the same activation bits and kind share it."""
        bits = self.precisions[index].activation_bits
        if bits == FULL_PRECISION_BITS:
            return FULL_PRECISION
        signed = self.arguments["signed"]
        if self.activation_kind == DEFAULT:
            return f"{'signed' if signed else 'unsigned'}_{bits}"
        return f"{self.activation_kind}_{'signed_' if signed else ''}{bits}"

    def noise(self) -> bool:
        """Whether the layer is one that gets noise now."""
        return self.training and self.context.quantization.mode == "noise"

    def weight_noise(self) -> Noise | None:
        """Noise for the weight of a layer that gets noise, under the present draw."""
        if not self._noisy_weights:
            return None
        context, weight = self.context, self.weight
        scale = context.noise_scales().weights[self.row]
        return Noise(scale, context.bank.take(weight), self.weight_span())

    def weight_span(self) -> Tensor:
        """``max - min`` of the weight, computed once a step of the search: both phases see the same weight."""
        # The step too, as optimizers that write to ``.data`` leave no trace in the version.
        weight = self.weight
        version = (weight.data_ptr(), weight._version, self.context.bank.step)
        if self._weight_span is None or self._weight_span[0] != version:
            with kept_for_training():
                self._weight_span = version, value_range(weight)
        return self._weight_span[1]

    def input_noise(self, source: LayerInput) -> Noise | None:
        """Noise for an input of a layer that gets noise, under the present draw; None where it has some already."""
        if not self._noisy_inputs or source.noisy is not None:
            return None
        return source.noise(self.context, self.context.noise_scales().inputs[self.row])

    def direct_kernels(self) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """For every activation quantizer in use: probability and quantized weight of each precision that reads it."""
        label = self.bits_choice.label
        probabilities = self.draw[label].unbind()
        kernels: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for index in self.draw.active(label):
            kernel = self.weight_quantizers[index](self.weight_of(index))
            kernels.setdefault(self.quantizer_name(index), []).append((probabilities[index], kernel))
        return kernels

    def share_quantizers(self, shared: nn.ModuleDict) -> None:
        """Read its input through quantizers that other layers read it through as well; new ones are added to them."""
        for name, quantizer in self.activation_quantizers.items():
            if name not in shared:
                shared[name] = quantizer
        self.activation_quantizers = shared

    def forward(self, x: Tensor) -> Tensor:
        """Output of a layer for an input of the shape that the concrete layer takes."""
        return self.compute(LayerInput(x))

    def compute(self, source: LayerInput, factor: Tensor | None = None) -> Tensor:
        """Output for an input that other layers may share, times a scalar."""
        if not self.direct:
            return self._noisy(source, factor) if self.noise() else self._of(source.plain, self.weight, factor)
        output: Any = None
        for name, weighted in self.direct_kernels().items():
            x = source.quantized(name, self.activation_quantizers)
            weights = [p if factor is None else p * factor for p, _ in weighted]
            if len(weights) == 1 and weights[0].requires_grad:
                # As with candidates: on the output the gradient of a probability is cheap.
                part = weights[0] * self._linear(x, weighted[0][1], self.bias)
            else:
                kernel: Any = sum(w.to(k.dtype) * k for w, (_, k) in zip(weights, weighted, strict=True))
                part = self._linear(x, kernel, None if self.bias is None else self.bias * sum(weights))
            output = part if output is None else output + part
        return cast(Tensor, output)

    def _linear(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's operation with a given kernel."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes")

    def _noisy(self, source: LayerInput, factor: Tensor | None) -> Tensor:
        """The layer with noise."""
        noise, weight, weight_noise = self.input_noise(source), self.weight, self.weight_noise()
        x = source.plain if source.noisy is None else source.noisy
        dtype = autocast_dtype(x if source.noisy is None else weight)
        if noise is not None:
            x = add_noise(x, noise.absolute(x).step, noise.unit, masked=self.context.quantization.masked)
        if weight_noise is not None:
            noisy = add_noise(weight, weight_noise.absolute(weight).step, weight_noise.unit)
            weight = noisy if noisy.dtype == weight.dtype else noisy.to(weight.dtype)
        if dtype.itemsize >= 4 or (noise is None and source.noisy is None):
            return self._of(x, weight, factor)
        both, twice = self._beside(*in_two_parts(x, dtype)), torch.cat([weight, weight], dim=1)
        return self._of(both, twice, factor)

    def _beside(self, high: Tensor, low: Tensor) -> Tensor:
        """Both parts of an input as its channels or features."""
        return torch.cat([high, low], dim=-1)

    def _of(self, x: Tensor, weight: Tensor, factor: Tensor | None) -> Tensor:
        """The layer's operation with a weight, times a scalar."""
        if factor is None:
            return self._linear(x, weight, self.bias)
        return self._linear(x, weight * factor.to(weight.dtype), None if self.bias is None else self.bias * factor)

    def _labels(self) -> list[str]:
        return [self.bits_choice.label]


class MixedQuantConv2d(MixedQuantLayer, nn.Conv2d):
    """A convolution of undecided precision; stands for ``MutableQuantConv2d``.

    Args:
        layer: the mutable layer, whose parameters it takes over.
        context: of the supernet.
    """

    concrete = QuantConv2d
    mutable = MutableQuantConv2d

    def __init__(self, layer: nn.Conv2d, context: SupernetContext) -> None:
        geometry: dict[str, Any] = {
            name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation", "groups")
        }
        others: dict[str, Any] = {"bias": layer.bias is not None, "padding_mode": layer.padding_mode}
        super().__init__(layer.in_channels, layer.out_channels, **geometry, **others)
        self._take_over(layer, context)
        self._geometry = Geometry(**{name: value for name, value in geometry.items() if name != "kernel_size"})

    def _linear(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, kernel, bias)

    def _beside(self, high: Tensor, low: Tensor) -> Tensor:
        return beside(high, low, self.groups)

    def _noisy(self, source: LayerInput, factor: Tensor | None) -> Tensor:
        """The fused form, for a batch and where torch's padding is zeros in plain numbers."""
        x, relu = source.for_fusion()
        if isinstance(self.padding, str) or self.padding_mode != "zeros" or x.dim() == 3:
            return super()._noisy(source, factor)
        return noisy_conv2d(
            x,
            self.weight,
            self.bias,
            self._geometry,
            x_noise=self.input_noise(source),
            weight_noise=self.weight_noise(),
            factor=factor,
            relu=relu,
            masked=self.context.quantization.masked,
            estimated=source.serves_noise_alone,
            noisy=source.noisy is not None,
        )


class MixedQuantLinear(MixedQuantLayer, nn.Linear):
    """A linear layer of undecided precision, as ``MixedQuantConv2d``; stands for ``MutableQuantLinear``."""

    concrete = QuantLinear
    mutable = MutableQuantLinear

    def __init__(self, layer: nn.Linear, context: SupernetContext) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self._take_over(layer, context)

    def _linear(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, kernel, bias)
