"""The modules of a supernet: layers of mixed precision and mixtures of candidates.

NNI replaces the mutable modules of a model space by these (``QuantNAS.mutate_model``). All of them read the one draw of
probabilities that their distribution holds, and none keeps logits of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from nni.mutable import Categorical, Mutable
from nni.nas.nn.pytorch import LayerChoice, ParametrizedModule
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import Tensor, nn
from torch.nn import functional as F

from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.nn.choice_block import ChoiceBlock
from quantnas_ext.nn.mutable_layers import MutableQuantConv2d, MutableQuantLinear
from quantnas_ext.quantization import Precision, QuantConv2d, QuantLinear, add_quantization_noise, value_range
from quantnas_ext.quantization.noise import (
    NOISE_MIXTURES,
    NOISE_VARIANCE,
    NoiseMixture,
    mixture_noise_scale,
    relative_steps,
)
from quantnas_ext.search.distribution import ArchitectureDistribution, Draw
from quantnas_ext.search.tracing import searched_precision

Noise = Literal["uniform", "gaussian", "none"]


@dataclass(frozen=True)
class NoiseModel:
    """How quantization is imitated during a search.

    Attributes:
        distribution: ``"uniform"`` (the error of an ideal quantizer), ``"gaussian"`` (the paper's code), or ``"none"``.
        mixture: ``"rss"`` or ``"power"``, see ``mixture_noise_scale``.

    Raises:
        InputError: for an unknown name.
    """

    distribution: Noise = "uniform"
    mixture: NoiseMixture = "rss"

    def __post_init__(self) -> None:
        if self.distribution not in (*NOISE_VARIANCE, "none"):
            raise unknown_name("quantization noise", self.distribution, (*NOISE_VARIANCE, "none"))
        if self.mixture not in NOISE_MIXTURES:
            raise unknown_name("noise mixture", self.mixture, NOISE_MIXTURES)


class SupernetModule(BaseSuperNetModule):
    """A module of the supernet that reads its probabilities from an ``ArchitectureDistribution``."""

    _distribution: tuple[ArchitectureDistribution]
    """In a tuple, so that torch does not take the distribution for a submodule (nor DDP its logits for weights)."""

    @property
    def draw(self) -> Draw:
        """The probabilities of the present phase."""
        return self._distribution[0].current

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Nothing: whoever runs a phase draws for the whole distribution."""
        return {}

    def export(self, memo: dict[str, Any]) -> dict[str, Any]:
        """This module's part of the joint arg max of all choices."""
        best = self._distribution[0].most_likely()
        return {label: best[label] for label in self._labels() if label in best and label not in memo}

    def export_probs(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Probabilities by label and value, as plain numbers."""
        distribution = self._distribution[0]
        probabilities = distribution.probabilities()
        values = {choice.label: choice.values for choice in distribution.tree}
        return {
            label: dict(zip(values[label], probabilities[label], strict=True))
            for label in self._labels()
            if label not in memo
        }

    def _labels(self) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__} does not name its labels")


class MixedLayerChoice(SupernetModule, LayerChoice):
    """Sum of all candidates' outputs, weighted with their probabilities; replaces ``LayerChoice`` and ``ChoiceBlock``.

    Args:
        candidates: as ``LayerChoice``.
        label: as ``LayerChoice``.
        distribution: over the choices of the space.
    """

    def __init__(
        self,
        candidates: Mapping[str, nn.Module] | list[nn.Module],
        label: str,
        distribution: ArchitectureDistribution,
    ) -> None:
        super().__init__(candidates, label=label)
        self._distribution = (distribution,)

    @classmethod
    def mutate(
        cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]
    ) -> MixedLayerChoice | None:
        """NNI mutation hook."""
        if isinstance(module, LayerChoice) and (isinstance(module, ChoiceBlock) or type(module) is LayerChoice):
            return cls(module.candidates, module.label, mutate_kwargs["distribution"])
        return None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """``sum_k p_k candidate_k(...)``."""
        probabilities = self.draw[self.label].unbind()
        outputs = (self[name](*args, **kwargs) for name in self.names)
        return sum(p * output for p, output in zip(probabilities, outputs, strict=True))

    def _labels(self) -> list[str]:
        return [self.label]


class MixedQuantLayer(SupernetModule):
    """What ``MixedQuantConv2d`` and ``MixedQuantLinear`` share: quantization noise for a distribution over precisions.

    In training mode input and weight get additive noise whose scale follows from the probabilities of the precisions;
    in evaluation mode the layer computes in full precision.
    """

    weight: Any
    bias: Any
    weight_steps: Tensor
    activation_steps: Tensor
    concrete: type[QuantConv2d | QuantLinear]
    mutable: type[Any]

    def _take_over(self, layer: Any, distribution: ArchitectureDistribution, noise: NoiseModel) -> None:
        """Become the supernet's version of a mutable layer, with its parameters."""
        self.weight, self.bias = layer.weight, layer.bias
        self.arguments: dict[str, Any] = dict(layer.args)
        self.bits_choice: Categorical = self.add_mutable(self.arguments["bits"])
        self.noise = noise
        self._distribution = (distribution,)
        precisions = [Precision.parse(value) for value in self.bits_choice.values]
        self.register_buffer("weight_steps", relative_steps([p.weight_bits for p in precisions]), persistent=False)
        self.register_buffer(
            "activation_steps", relative_steps([p.activation_bits for p in precisions]), persistent=False
        )

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
        return cls(module, mutate_kwargs["distribution"], mutate_kwargs["noise"])

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """The concrete layer of the chosen precision, with these weights and steps started from them."""
        self.validate(sample)
        layer = self.concrete(**{**self.arguments, "bits": self.bits_choice.freeze(sample)})
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            if layer.bias is not None and self.bias is not None:
                layer.bias.copy_(self.bias)
        layer.reset_steps()
        return layer

    def noisy(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input and weight with the noise of the present draw (in training mode)."""
        if not self.training or self.noise.distribution == "none":
            return x, self.weight
        probabilities = self.draw[self.bits_choice.label]
        noisy = []
        for tensor, steps in ((x, self.activation_steps), (self.weight, self.weight_steps)):
            scale = value_range(tensor) * mixture_noise_scale(probabilities, steps, self.noise.mixture)
            noisy.append(add_quantization_noise(tensor, scale, self.noise.distribution))
        return noisy[0], noisy[1]

    def _labels(self) -> list[str]:
        return [self.bits_choice.label]


class MixedQuantConv2d(MixedQuantLayer, nn.Conv2d):
    """A convolution of undecided precision; stands for ``MutableQuantConv2d``.

    Args:
        layer: the mutable layer, whose parameters it takes over.
        distribution: over the choices of the space.
        noise: how quantization is imitated.
    """

    concrete = QuantConv2d
    mutable = MutableQuantConv2d

    def __init__(self, layer: nn.Conv2d, distribution: ArchitectureDistribution, noise: NoiseModel) -> None:
        geometry: dict[str, Any] = {
            name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation", "groups")
        }
        super().__init__(layer.in_channels, layer.out_channels, **geometry, bias=layer.bias is not None)
        self._take_over(layer, distribution, noise)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` to ``[N, C_out, H', W']``."""
        return self._conv_forward(*self.noisy(x), self.bias)


class MixedQuantLinear(MixedQuantLayer, nn.Linear):
    """A linear layer of undecided precision; stands for ``MutableQuantLinear``.

    Args:
        layer: the mutable layer, whose parameters it takes over.
        distribution: over the choices of the space.
        noise: how quantization is imitated.
    """

    concrete = QuantLinear
    mutable = MutableQuantLinear

    def __init__(self, layer: nn.Linear, distribution: ArchitectureDistribution, noise: NoiseModel) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self._take_over(layer, distribution, noise)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, ..., in_features]`` to ``[N, ..., out_features]``."""
        return F.linear(*self.noisy(x), self.bias)
