"""What all modules of a supernet share: one draw, one noise bank, the noise scales of all precisions at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution, Draw
from quantnas_ext.quantization import Precision
from quantnas_ext.quantization.noise.additive import kept_for_training, mixture_noise_scale, relative_steps
from quantnas_ext.quantization.noise.bank import NoiseBank
from quantnas_ext.supernet.quantization_mode import SearchQuantization


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


class NoiseScales(NamedTuple):
    """Noise steps in units of ranges, for every row of the distribution.

    Attributes:
        table: ``[2, rows]``, of weights and of inputs.
        weights, inputs: its entries as scalars.
    """

    table: Tensor
    weights: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]


class SupernetContext:
    """Shared by the modules of one supernet.

    Args:
        distribution: over the choices of the space.
        quantization: how quantization shows.
        most_likely: gives the architecture found, an NNI sample (``SearchObjective.most_likely``).
    """

    def __init__(
        self,
        distribution: ArchitectureDistribution,
        quantization: SearchQuantization,
        most_likely: Callable[[], dict[str, Any]],
    ) -> None:
        self.distribution = distribution
        self.quantization = quantization
        self.most_likely = most_likely
        self.bank = NoiseBank(quantization.noise)
        shape = distribution.current.probabilities.shape
        self._steps = torch.zeros(2, *shape)
        self._scales: tuple[Draw, bool, NoiseScales] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The scales of a draw may hold a graph, which cannot be copied; a copy makes its own.
        return {**self.__dict__, "_scales": None}

    @property
    def draw(self) -> Draw:
        """The probabilities of the present phase."""
        return self.distribution.current

    def declare(self, label: str, precisions: Sequence[Precision]) -> None:
        """Make the values of a precision label known."""
        row = self.distribution.rows[label]
        for kind, bits in enumerate(([p.weight_bits for p in precisions], [p.activation_bits for p in precisions])):
            self._steps[kind, row, : len(bits)] = relative_steps(bits)

    def is_noisy(self, label: str) -> tuple[bool, bool]:
        """Whether weights and activations of a label have noise at any precision (32 bits have none)."""
        weights, activations = self._steps[:, self.distribution.rows[label]].any(dim=1).tolist()
        return weights, activations

    def noise_scales(self) -> NoiseScales:
        """Of the present draw, computed once a draw for all layers."""
        draw, with_graph = self.draw, torch.is_grad_enabled()
        if self._scales is None or self._scales[0] is not draw or self._scales[1] != with_graph:
            with kept_for_training():
                self._steps = self._steps.to(draw.probabilities.device)
            # Checkpointing of activations must not count what only the first of all layers saves.
            with (
                saved_tensors_hooks(_as_it_is, _as_it_is),
                torch.inference_mode(False),
                torch.set_grad_enabled(with_graph),
            ):
                table = mixture_noise_scale(draw.probabilities, self._steps, self.quantization.mixture)
                weights, inputs = (of.unbind() for of in table)
            self._scales = (draw, with_graph, NoiseScales(table, weights, inputs))
        return self._scales[2]
