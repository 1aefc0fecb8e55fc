"""The modules of a supernet, of which NNI puts one in place of each mutable module (``QuantNAS.mutate_model``).

All of them read the one draw of probabilities that their distribution holds, and none keeps logits of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from nni.nas.nn.pytorch import LayerChoice
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import nn

from quantnas_ext.distribution.architecture_distribution import Draw
from quantnas_ext.supernet.context import SupernetContext
from quantnas_ext.supernet.mixture import added, scaled


class SupernetModule(BaseSuperNetModule):
    """A module of the supernet that reads its probabilities from an ``ArchitectureDistribution``."""

    _context: tuple[SupernetContext]
    """In a tuple, as nothing in it belongs to the module."""

    @property
    def context(self) -> SupernetContext:
        """What the modules of the supernet share."""
        return self._context[0]

    @property
    def draw(self) -> Draw:
        """The probabilities of the present phase."""
        return self.context.draw

    @classmethod
    def mutate(cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> Self | None:
        """NNI mutation hook: what stands for a module of the kind that this one replaces, None for another."""
        return cls.replacing(module, name, mutate_kwargs["context"])

    @classmethod
    def replacing(cls, module: Any, name: str, context: SupernetContext) -> Self | None:
        """Of any module of a space, at the path ``name``: what ``mutate`` returns."""
        raise NotImplementedError(f"{cls.__name__} does not say what it replaces")

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Nothing: whoever runs a phase draws for the whole distribution."""
        return {}

    def export(self, memo: dict[str, Any]) -> dict[str, Any]:
        """This module's part of the architecture found, which is the most probable one within all budgets."""
        labels = [label for label in self._labels() if label not in memo]
        best = self.context.most_likely() if labels else {}
        return {label: best[label] for label in labels if label in best}

    def export_probs(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Probabilities by label and value, as plain numbers."""
        distribution = self.context.distribution
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
    """Sum of all candidates' outputs, weighted with their probabilities; replaces ``LayerChoice``.

    Candidates may return tuples, lists and dictionaries of tensors, as an LSTM does; these are summed part by part.

    Args:
        candidates: as ``LayerChoice``.
        label: as ``LayerChoice``.
        context: of the supernet.
    """

    def __init__(
        self, candidates: Mapping[str, nn.Module] | list[nn.Module], label: str, context: SupernetContext
    ) -> None:
        super().__init__(candidates, label=label)
        self._context = (context,)

    @classmethod
    def replacing(cls, module: Any, name: str, context: SupernetContext) -> Self | None:
        """For a plain ``LayerChoice``."""
        return cls(module.candidates, module.label, context) if type(module) is LayerChoice else None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """``sum_k p_k candidate_k(...)`` over the candidates that the present draw evaluates."""
        probabilities = self.draw[self.label].unbind()
        total = None
        for count, index in enumerate(self.draw.active(self.label)):
            name = f"candidate {self.names[index]!r} of block {str(self.label)!r}"
            output = scaled(self[self.names[index]](*args, **kwargs), probabilities[index], name)
            total = output if count == 0 else added(total, output, name)
        return total

    def _labels(self) -> list[str]:
        return [self.label]
