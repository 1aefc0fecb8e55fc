"""Relaxations: how the probabilities that a phase of a search works with are drawn from the logits.

Each is a function under ``register_relaxation``. With paths, costs and entropy are those of the distribution that the
paths are drawn from: their exact gradient costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from quantnas_ext.arguments import Registry


class Relaxed(NamedTuple):
    """Probabilities drawn from logits.

    Attributes:
        probabilities: ``[choices, most values]``, zero where a row is shorter.
        soft: what the entropy is that of: the same, except for one-hot probabilities, whose entropy is zero whatever
            the logits; there it is the soft draw that they were made from, or the distribution they were sampled from.
        log_probabilities: of ``soft``, zero where a value is absent or dropped.
        sampled: for every row the places of the values to evaluate; None for all.
    """

    probabilities: Tensor
    soft: Tensor
    log_probabilities: Tensor
    sampled: list[tuple[int, ...]] | None


class Logits(NamedTuple):
    """What a relaxation draws from.

    Attributes:
        logits: ``[choices, most values]``, minus infinity where a row is shorter.
        present: which entries there are.
        temperature: of Gumbel draws.
        generator: source of the noise, on the CPU, so that it is the same on all processes and devices; torch's global
            one where it is None.
    """

    logits: Tensor
    present: Tensor
    temperature: float
    generator: torch.Generator | None

    def softmax(self) -> tuple[Tensor, Tensor]:
        """Logarithms and probabilities of the distribution itself."""
        return masked_softmax(self.logits, self.present)

    def perturbed(self) -> Tensor:
        """Logits plus standard Gumbel noise."""
        # An exponential variate is never 0 in double precision but may round to it in single.
        exponential = torch.empty(self.logits.shape, dtype=torch.float64).exponential_(generator=self.generator)
        return self.logits - exponential.log().to(self.logits)

    def paths(self, count: int) -> Tensor:
        """So many entries of every row, without replacement: the largest of logits with Gumbel noise are that."""
        most = self.perturbed().topk(min(count, self.logits.shape[1]), dim=1).indices
        return torch.zeros_like(self.present).scatter(1, most, True) & self.present


Drawing = Callable[[Logits], Relaxed]


class _Kind(NamedTuple):
    draw: Drawing
    random: bool
    samples: bool


RELAXATIONS: Registry[_Kind] = Registry("relaxation")


def register_relaxation(name: str, *, random: bool = True, samples: bool = False) -> Callable[[Drawing], Drawing]:
    """Decorator that makes a function known under ``name`` to searches.

    Args:
        name: what configurations call it.
        random: whether draws differ from each other.
        samples: whether draws leave candidates out, which are then not evaluated (``Relaxed.sampled``).

    Raises:
        InputError: when the name is taken or cannot be one.
    """
    add = RELAXATIONS.register(name)

    def register(draw: Drawing) -> Drawing:
        add(_Kind(draw, random, samples))
        return draw

    return register


@dataclass(frozen=True)
class Relaxation:
    """A way to draw probabilities from logits.

    Attributes:
        name: one of ``RELAXATIONS``.
        temperature: of Gumbel draws, at the start and the end of a search; it changes linearly with the step.

    Raises:
        InputError: for an unknown name. ``StrategyOptions`` checks temperatures.
    """

    name: str = "softmax"
    temperature: tuple[float, float] = (10.0, 0.1)

    def __post_init__(self) -> None:
        RELAXATIONS.find(self.name)

    @property
    def random(self) -> bool:
        """Whether draws differ from each other."""
        return RELAXATIONS[self.name].random

    @property
    def samples(self) -> bool:
        """Whether draws leave candidates out, which are then not evaluated."""
        return RELAXATIONS[self.name].samples

    def temperature_at(self, progress: float) -> float:
        """Temperature after a share ``progress`` (0 to 1) of the search."""
        start, end = self.temperature
        return start + (end - start) * min(1.0, max(0.0, progress))

    def relax(self, logits: Tensor, present: Tensor, progress: float, generator: torch.Generator | None) -> Relaxed:
        """Draw, as ``Logits`` describes, after a share ``progress`` of the search, which sets the temperature."""
        return RELAXATIONS[self.name].draw(Logits(logits, present, self.temperature_at(progress), generator))


@register_relaxation("softmax", random=False)
def _softmax(given: Logits) -> Relaxed:
    """The distribution itself."""
    logs, soft = given.softmax()
    return Relaxed(soft, soft, logs, None)


@register_relaxation("gumbel")
def _gumbel(given: Logits) -> Relaxed:
    """``softmax((logits + g) / temperature)``, g standard Gumbel noise. The arg max has the distribution itself.

    Source: Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017.
    """
    logs, soft = masked_softmax(given.perturbed() / given.temperature, given.present)
    return Relaxed(soft, soft, logs, None)


@register_relaxation("gumbel_hard")
def _gumbel_hard(given: Logits) -> Relaxed:
    """The arg max of such a draw, as zeros and one 1.

    Straight through: the gradient is that of the soft draw, as if the output were it. All candidates are evaluated,
    those with zero included, because the gradient of a candidate's probability needs its output.
    """
    _, soft, logs, _ = _gumbel(given)
    # In this order the value is exactly 0 or 1: a difference of equal numbers is exactly 0.
    return Relaxed(_largest(soft).to(soft) + (soft - soft.detach()), soft, logs, None)


@register_relaxation("gumbel_hard_sampled", samples=True)
def _gumbel_hard_sampled(given: Logits) -> Relaxed:
    """The same, but only the chosen candidates are evaluated.

    The others' probabilities get no gradient from the task. It is cheap, and biased.
    """
    hard, soft, logs, _ = _gumbel_hard(given)
    chosen = _largest(soft)
    return Relaxed(hard * chosen, soft, logs, places(chosen))


@register_relaxation("dropout", samples=True)
def _dropout(given: Logits) -> Relaxed:
    """Each of the K candidates of a choice is kept with probability ``2 / K``, one at random where none would be.

    Their probabilities are renormalised. The others are not evaluated and get no gradient.
    """
    there = given.present.cpu()
    uniform = torch.rand(there.shape, generator=given.generator).masked_fill(~there, 2.0)
    lowest = uniform == uniform.amin(dim=1, keepdim=True)
    kept = there & ((uniform * there.sum(dim=1, keepdim=True) < 2.0) | lowest)
    logs, soft = masked_softmax(given.logits, given.present & kept.to(given.present.device))
    return Relaxed(soft, soft, logs, places(kept))


@register_relaxation("one_path", samples=True)
def _one_path(given: Logits) -> Relaxed:
    """One candidate of every choice, drawn from the distribution, with probability 1.

    Its gradient is that of ``p / p``, the denominator detached: that of its logarithm. On average over draws that is
    the gradient of the mixture of all candidates, for a loss linear in a block's output.
    """
    logs, soft = given.softmax()
    chosen = given.paths(1)
    return Relaxed(torch.where(chosen, (logs - logs.detach()).exp(), 0.0), soft, logs, places(chosen))


@register_relaxation("two_paths", samples=True)
def _two_paths(given: Logits) -> Relaxed:
    """Two candidates of every choice, drawn without replacement, with their probabilities renormalised.

    Source: ProxylessNAS, Cai et al., ICLR 2019, section 3.2.1.
    """
    logs, soft = given.softmax()
    chosen = given.paths(2)
    return Relaxed(masked_softmax(given.logits, chosen)[1], soft, logs, places(chosen))


def _largest(soft: Tensor) -> Tensor:
    """Where the largest entry of every row is."""
    return torch.zeros_like(soft, dtype=torch.bool).scatter(1, soft.argmax(dim=1, keepdim=True), True)


def masked_softmax(logits: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms and probabilities of the kept entries of every row; zero elsewhere."""
    logs = logits.masked_fill(~kept, -torch.inf).log_softmax(dim=1).masked_fill(~kept, 0.0)
    return logs, logs.exp() * kept


def places(chosen: Tensor) -> list[tuple[int, ...]]:
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
