"""Relaxations: how the probabilities that a phase of a search works with are drawn from the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from quantnas_ext.arguments import name_among, real_number
from quantnas_ext.errors import InputError, shown

RelaxationName = Literal["softmax", "gumbel", "gumbel_hard", "gumbel_hard_sampled", "dropout", "one_path", "two_paths"]
RELAXATIONS: tuple[RelaxationName, ...] = get_args(RelaxationName)
TEMPERED = ("gumbel", "gumbel_hard", "gumbel_hard_sampled")
PATHS = {"one_path": 1, "two_paths": 2}


class Relaxed(NamedTuple):
    """Probabilities drawn from logits.

    Attributes:
        probabilities: ``[choices, most values]``, zero where a row is shorter.
        soft: those that hard ones were made from, or the distribution that paths were sampled from; else the same.
        log_probabilities: of ``soft``, zero where a value is absent or dropped.
        sampled: for every row the places of the values to evaluate; None for all.
    """

    probabilities: Tensor
    soft: Tensor
    log_probabilities: Tensor
    sampled: list[tuple[int, ...]] | None


@dataclass(frozen=True)
class Relaxation:
    """A way to draw probabilities from logits.

    * ``softmax``: the distribution itself.
    * ``gumbel``: ``softmax((logits + g) / temperature)``, g standard Gumbel noise (Jang et al., "Categorical
      Reparameterization with Gumbel-Softmax", ICLR 2017). The arg max of a draw has the distribution itself.
    * ``gumbel_hard``: the arg max of such a draw, as zeros and one 1. Straight through: the gradient is that of the
      soft draw, as if the output were it. All candidates are evaluated, those with zero included, because the gradient
      of a candidate's probability needs its output.
    * ``gumbel_hard_sampled``: the same, but only the chosen candidates are evaluated; the others' probabilities get no
      gradient from the task. It is cheap, and biased.
    * ``dropout``: each of the K candidates of a choice is kept with probability ``2 / K`` (one at random where none
      would be), and the probabilities of the kept ones are renormalised. The others are not evaluated and get no
      gradient.
    * ``one_path``: one candidate of every choice, drawn from the distribution, has probability 1 with the gradient of
      ``p / p``, the denominator detached: that of its logarithm. On average over draws that is the gradient of the
      mixture of all candidates, for a loss linear in a block's output.
    * ``two_paths``: two candidates of every choice, drawn from the distribution without replacement, with their
      probabilities renormalised (ProxylessNAS: Cai et al., ICLR 2019, section 3.2.1).

    With paths, costs and entropy are those of the distribution that the paths are drawn from: their exact gradient
    costs nothing.

    Attributes:
        name: one of these.
        temperature: of Gumbel draws, at the start and the end of a search; it changes linearly with the step.

    Raises:
        InputError: for an unknown name or a temperature that is not above 0.
    """

    name: RelaxationName = "softmax"
    temperature: tuple[float, float] = (10.0, 0.1)

    def __post_init__(self) -> None:
        name_among("relaxation", self.name, RELAXATIONS)
        try:
            start, end = self.temperature
            temperature = tuple(real_number("a temperature,", value, above=0) for value in (start, end))
        except (InputError, TypeError, ValueError) as error:  # the last two: nothing that holds two values
            raise InputError(
                f"temperature {shown(self.temperature)} is not possible; give two numbers above 0, start and end"
            ) from error
        object.__setattr__(self, "temperature", temperature)

    @property
    def random(self) -> bool:
        """Whether draws differ from each other."""
        return self.name != "softmax"

    @property
    def samples(self) -> bool:
        """Whether draws leave candidates out, which are then not evaluated."""
        return self.name in (*PATHS, "gumbel_hard_sampled", "dropout")

    def temperature_at(self, progress: float) -> float:
        """Temperature after a share ``progress`` (0 to 1) of the search."""
        start, end = self.temperature
        return start + (end - start) * min(1.0, max(0.0, progress))

    def relax(self, logits: Tensor, present: Tensor, progress: float, generator: torch.Generator | None) -> Relaxed:
        """Draw.

        Args:
            logits: ``[choices, most values]``, minus infinity where a row is shorter.
            present: which entries there are.
            progress: share of the search that is done, which sets the temperature.
            generator: source of the noise, on the CPU; torch's global one by default.
        """
        if self.name == "dropout":
            kept = self._kept(present.cpu(), generator)
            logs, soft = _softmax(logits, present & kept.to(present.device))
            return Relaxed(soft, soft, logs, _places(kept))
        if self.name == "softmax":
            logs, soft = _softmax(logits, present)
            return Relaxed(soft, soft, logs, None)
        # An exponential variate is never 0 in double precision but may round to it in single.
        exponential = torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=generator)
        perturbed = logits - exponential.log().to(logits)
        if self.name in PATHS:
            logs, soft = _softmax(logits, present)
            # The largest of logits with Gumbel noise are a sample without replacement.
            most = perturbed.topk(min(PATHS[self.name], perturbed.shape[1]), dim=1).indices
            chosen = torch.zeros_like(present).scatter(1, most, True) & present
            if self.name == "one_path":
                paths = torch.where(chosen, (logs - logs.detach()).exp(), 0.0)
            else:
                _, paths = _softmax(logits, chosen)
            return Relaxed(paths, soft, logs, _places(chosen.cpu()))
        logs, soft = _softmax(perturbed / self.temperature_at(progress), present)
        if self.name == "gumbel":
            return Relaxed(soft, soft, logs, None)
        chosen = torch.zeros_like(present).scatter(1, soft.argmax(dim=1, keepdim=True), True)
        # In this order the value is exactly 0 or 1: a difference of equal numbers is exactly 0.
        hard = chosen.to(soft) + (soft - soft.detach())
        if self.name == "gumbel_hard":
            return Relaxed(hard, soft, logs, None)
        return Relaxed(hard * chosen, soft, logs, _places(chosen.cpu()))

    @staticmethod
    def _kept(present: Tensor, generator: torch.Generator | None) -> Tensor:
        """Each value with probability 2 / K, one at random where none would be."""
        uniform = torch.rand(present.shape, generator=generator).masked_fill(~present, 2.0)
        lowest = uniform == uniform.amin(dim=1, keepdim=True)
        return present & ((uniform * present.sum(dim=1, keepdim=True) < 2.0) | lowest)


def _softmax(logits: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms and probabilities of the kept entries of every row; zero elsewhere."""
    logs = logits.masked_fill(~kept, -torch.inf).log_softmax(dim=1).masked_fill(~kept, 0.0)
    return logs, logs.exp() * kept


def _places(chosen: Tensor) -> list[tuple[int, ...]]:
    """For every row the columns that are true."""
    return [tuple(index for index, value in enumerate(row) if value) for row in chosen.tolist()]


def draw_generator(seed: int, step: int, phase: int) -> torch.Generator:
    """Random numbers for one draw as a function of (seed, step, phase): the same on all processes.

    Args:
        seed: of the search.
        step: steps done.
        phase: 0 for the architecture step, 1 for the weight step.
    """
    return torch.Generator().manual_seed(((seed % 2**31) * 1_000_003 + step) * 2 + phase)
