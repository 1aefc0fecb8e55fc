"""NNI's own DARTS on spaces of quantized layers, as a baseline."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from nni.mutable import Categorical
from nni.nas.nn.pytorch import ParametrizedModule
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.differentiable import DifferentiableMixedLayer
from nni.nas.strategy import DARTS
from torch import Tensor, nn

from quantnas_ext.compat import prepare_supernets
from quantnas_ext.nn.choice_block import ChoiceBlock
from quantnas_ext.nn.mutable_layers import MutableQuantConv2d, MutableQuantLinear, searched_precision
from quantnas_ext.quantization import QuantConv2d, QuantLinear


def nni_darts(**options: Any) -> DARTS:
    """NNI's DARTS strategy (Liu et al., ICLR 2019), unmodified, with hooks for the modules of this package.

    NNI refuses modules that it does not know. Two mutation hooks make ours known to it: a ``ChoiceBlock`` becomes NNI's
    ``DifferentiableMixedLayer``, and a quantized layer whose precision is a choice a ``MixedPrecisionLayer``. With one
    precision on offer, such as ``bits=[32]``, that is a search for operations alone; with several, NNI's DARTS searches
    precisions too, by real quantization instead of noise.

    It has no budgets and no entropy, and costs have no influence: NNI's own penalty has no gradient. Its result takes
    the arg max of every choice by itself, not the joint one, and its logits have weight decay 1e-3.

    Args:
        options: as ``nni.nas.strategy.DARTS``; ``mutation_hooks`` run before those of this package.
    """
    prepare_supernets()
    own = [_mixed_block, MixedPrecisionLayer.mutate]
    return DARTS(mutation_hooks=[*(options.pop("mutation_hooks", None) or []), *own], **options)


def _mixed_block(
    module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]
) -> DifferentiableMixedLayer | None:
    """NNI mutation hook for ``ChoiceBlock``; NNI's own takes no subclass of ``LayerChoice``."""
    if isinstance(module, ChoiceBlock):
        return DifferentiableMixedLayer(module.candidates, memo[module.label], mutate_kwargs["softmax"], module.label)
    return None


class MixedPrecisionLayer(BaseSuperNetModule):
    """A layer at every precision it can have, outputs summed with NNI's probabilities; weight and bias are shared.

    Args:
        layer: the mutable layer, whose parameters it takes over.
        alpha: NNI's logits for its precisions, ``[precisions]``.
        softmax: makes probabilities of them.
    """

    def __init__(self, layer: QuantConv2d | QuantLinear, alpha: nn.Parameter, softmax: nn.Module) -> None:
        super().__init__()
        arguments = dict(cast(ParametrizedModule, layer).args)
        self.bits_choice: Categorical = self.add_mutable(arguments["bits"])
        concrete = QuantConv2d if isinstance(layer, QuantConv2d) else QuantLinear
        versions = [concrete(**{**arguments, "bits": value}) for value in self.bits_choice.values]
        for version in versions:
            version.weight, version.bias = layer.weight, layer.bias
            version.reset_steps()
        self.layers = nn.ModuleList(versions)
        self.alpha = alpha
        self.softmax = softmax

    @classmethod
    def mutate(
        cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]
    ) -> MixedPrecisionLayer | None:
        """NNI mutation hook."""
        if not isinstance(module, (MutableQuantConv2d, MutableQuantLinear)):
            return None
        bits = searched_precision(module)
        return None if bits is None else cls(module, memo[bits.label], mutate_kwargs["softmax"])

    def forward(self, x: Tensor) -> Tensor:
        """``sum_b p_b layer_b(x)``, with the shapes of the layer."""
        outputs = (layer(x) for layer in self.layers)
        return torch.stack([p * y for p, y in zip(self.softmax(self.alpha), outputs, strict=True)]).sum(dim=0)

    def arch_parameters(self) -> Iterator[nn.Parameter]:
        """The logits, which NNI then leaves to the architecture step."""
        yield self.alpha

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Nothing to draw."""
        return {}

    def export(self, memo: dict[str, Any]) -> dict[str, Any]:
        """The precision of the largest logit."""
        label = self.bits_choice.label
        return {} if label in memo else {label: self.bits_choice.values[int(self.alpha.argmax())]}

    def export_probs(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Probabilities of the precisions, as plain numbers."""
        label = self.bits_choice.label
        probabilities = self.softmax(self.alpha.detach()).tolist()
        return {} if label in memo else {label: dict(zip(self.bits_choice.values, probabilities, strict=True))}

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """A copy of the layer of the chosen precision."""
        self.validate(sample)
        return copy.deepcopy(self.layers[self.bits_choice.values.index(self.bits_choice.freeze(sample))])
