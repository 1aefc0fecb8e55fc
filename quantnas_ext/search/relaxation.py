"""Relaxations: how the probabilities that a phase of a search works with are drawn from the logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from quantnas_ext.errors import InputError, unknown_name

RelaxationName = Literal["softmax", "gumbel", "gumbel_hard", "dropout"]
RELAXATIONS: tuple[RelaxationName, ...] = ("softmax", "gumbel", "gumbel_hard", "dropout")


@dataclass(frozen=True)
class Relaxation:
    """A way to draw probabilities from logits.

    * ``softmax``: the distribution itself.
    * ``gumbel``: ``softmax((logits + g) / temperature)``, g standard Gumbel noise (Jang et al., "Categorical
      Reparameterization with Gumbel-Softmax", ICLR 2017). The arg max of a draw has the distribution itself.
    * ``gumbel_hard``: the arg max of such a draw, as zeros and one 1. Straight through: the gradient is that of the
      soft draw, as if the output were it. All candidates are evaluated, those with zero included, because the gradient
      of a candidate's probability needs its output.
    * ``dropout``: each of the K candidates of a choice is kept with probability ``2 / K`` (one at random where none
      would be), and the probabilities of the kept ones are renormalised. The others get no gradient.

    Attributes:
        name: one of these.
        temperature: of Gumbel draws, at the start and the end of a search; it changes linearly with the step.

    Raises:
        InputError: for an unknown name or a temperature that is not above 0.
    """

    name: RelaxationName = "softmax"
    temperature: tuple[float, float] = (10.0, 0.1)

    def __post_init__(self) -> None:
        if self.name not in RELAXATIONS:
            raise unknown_name("relaxation", self.name, RELAXATIONS)
        if len(self.temperature) != 2 or not all(math.isfinite(value) and value > 0 for value in self.temperature):
            raise InputError(
                f"temperature {self.temperature!r} is not possible; give two numbers above 0, start and end"
            )

    @property
    def random(self) -> bool:
        """Whether draws differ from each other."""
        return self.name != "softmax"

    def temperature_at(self, progress: float) -> float:
        """Temperature after a share ``progress`` (0 to 1) of the search."""
        start, end = self.temperature
        return start + (end - start) * min(1.0, max(0.0, progress))

    def relax(
        self, logits: Tensor, present: Tensor, progress: float, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw.

        Args:
            logits: ``[choices, most values]``, minus infinity where a row is shorter.
            present: which entries there are.
            progress: share of the search that is done.
            generator: source of the noise, on the CPU; torch's global one by default.

        Returns:
            The probabilities; the soft ones that hard ones were made from (else the same); the logarithms of the
            latter, zero where a value is absent or dropped.
        """
        kept = present
        if self.name in ("gumbel", "gumbel_hard"):
            # An exponential variate is never 0 in double precision but may round to it in single.
            exponential = torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=generator)
            noise = -exponential.log().to(logits)
            logits = (logits + noise) / self.temperature_at(progress)
        elif self.name == "dropout":
            uniform = torch.rand(logits.shape, generator=generator).to(logits).masked_fill(~present, 2.0)
            lowest = uniform == uniform.amin(dim=1, keepdim=True)
            kept = present & ((uniform * present.sum(dim=1, keepdim=True) < 2.0) | lowest)
            logits = logits.masked_fill(~kept, -torch.inf)
        logs = logits.log_softmax(dim=1).masked_fill(~kept, 0.0)
        soft = logs.exp() * kept
        if self.name != "gumbel_hard":
            return soft, soft, logs
        hard = torch.zeros_like(soft).scatter(1, soft.argmax(dim=1, keepdim=True), 1.0)
        # In this order the value is exactly 0 or 1: a difference of equal numbers is exactly 0.
        return hard + (soft - soft.detach()), soft, logs


def draw_generator(seed: int, step: int, phase: int) -> torch.Generator:
    """Random numbers for one draw as a function of (seed, step, phase): the same on all processes.

    Args:
        seed: of the search.
        step: steps done.
        phase: 0 for the architecture step, 1 for the weight step.
    """
    return torch.Generator().manual_seed(((seed % 2**31) * 1_000_003 + step) * 2 + phase)
