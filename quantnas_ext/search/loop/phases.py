"""The two phases of a step: what each draws, freezes and updates; and random numbers around them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from quantnas_ext.distribution.relaxation import draw_generator
from quantnas_ext.errors import InputError, shown
from quantnas_ext.search.loop.schedule import Schedule
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.supernet.context import SupernetContext

_NAMES = ("architecture", "weight")


class Phase:
    """A phase of a step, while it is open.

    Attributes:
        name: in words, with its step.
        parts: in an architecture phase, once it has its loss: what that was made of, see ``SearchObjective``.
    """

    def __init__(self, name: str, update: Callable[[Tensor], object]) -> None:
        self.name = name
        self.parts: dict[str, Tensor] = {}
        self.done = False
        self._update = update

    def minimize(self, loss: Tensor) -> Tensor:
        """Take the step of the phase: costs and entropy are added by an architecture phase itself.

        Args:
            loss: scalar, of what the supernet gave in this phase.

        Returns:
            The loss, detached.

        Raises:
            InputError: for a second loss, or what is no scalar.
        """
        if self.done:
            raise InputError(f"{self.name} has had its loss; add losses up and call minimize(loss) once")
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise InputError(f"{self.name} cannot minimize {shown(loss)}; give a loss that is a tensor of one number")
        self._update(loss)
        self.done = True
        return loss.detach()


class Phases:
    """The phases of a search: each begins the noise, draws once, freezes what it does not train, and ends in a step.

    Phases of a search follow each other in the order of their steps, in each the architecture's before the weights'.
    What a phase draws and its noise are functions of (seed, process, step) alone.

    Args:
        context: of the supernet.
        objective: of the architecture phase.
        schedule: how many steps there are.
        weights: what the weight phase trains.
        optimizer: of the logits.
        seed: of draws and noise, the same in all processes.
        process: rank of this process.
        scaled: what is done to the loss of the architecture phase ahead of its gradient, such as to scale it.
    """

    def __init__(
        self,
        context: SupernetContext,
        objective: SearchObjective,
        schedule: Schedule,
        weights: Sequence[nn.Parameter],
        optimizer: Any,
        *,
        seed: int,
        process: int = 0,
        scaled: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> None:
        self.context, self.objective, self.schedule = context, objective, schedule
        self.weights, self.optimizer = list(weights), optimizer
        self._logits = list(context.distribution.parameters())
        self._seed, self._process, self._scaled = seed, process, scaled
        self._last = (-1, 0)
        self._present: Phase | None = None
        _share_logits(self._logits)

    @contextmanager
    def architecture(self, step: int) -> Iterator[Phase]:
        """The architecture phase: weights get no gradient, ``minimize`` moves logits and multipliers.

        Args:
            step: of the search.

        Raises:
            InputError: within another phase, out of order, in the warm-up, or when it ends without a loss.
        """
        if not self.schedule.searching(step):
            raise InputError(
                f"step {step} is in the warm-up, which trains the weights alone; have no architecture phase there"
            )
        with self._phase(0, step, lambda loss: self._update_logits(loss, step)) as phase, frozen(self.weights):
            self._draw(step, 0)
            yield phase

    @contextmanager
    def weight(self, step: int, update: Callable[[Tensor], object]) -> Iterator[Phase]:
        """The weight phase: logits get no gradient.

        Args:
            step: of the search.
            update: the weights' step down the gradient of a loss, which ``minimize`` takes.

        Raises:
            InputError: within another phase, out of order, or when it ends without a loss.
        """
        with self._phase(1, step, update) as phase:
            with torch.no_grad():
                self._draw(step, 1)
            yield phase

    @contextmanager
    def _phase(self, kind: int, step: int, update: Callable[[Tensor], object]) -> Iterator[Phase]:
        phase = Phase(f"the {_NAMES[kind]} phase of step {step}", lambda loss: update(self._of_this_phase(loss)))
        if self._present is not None:
            raise InputError(f"{phase.name} begins within {self._present.name}; end that one first")
        if step >= self.schedule.steps:
            raise InputError(f"{phase.name} is behind the last of {self.schedule.steps} steps; search for more epochs")
        if (step, kind) <= self._last:
            before = f"the {_NAMES[self._last[1]]} phase of step {self._last[0]}"
            raise InputError(f"{phase.name} comes after {before}; count steps up, each with its architecture first")
        self._last, self._present = (step, kind), phase
        try:
            yield phase
        finally:
            self._present = None
            self.context.distribution.forget()
        if not phase.done:
            raise InputError(f"{phase.name} ends without a loss; call minimize(loss) of what it gives")

    def _draw(self, step: int, kind: int) -> None:
        self.context.bank.begin(self._seed, self._process, step, kind)
        self.context.distribution.draw(self.schedule.progress(step), draw_generator(self._seed, step, kind))

    def _of_this_phase(self, loss: Tensor) -> Tensor:
        """The loss, if the supernet can have given it: in full precision alone it need not ask for probabilities."""
        assert self._present is not None
        if not self.context.distribution.read and self.context.quantization.mode != "none":
            raise InputError(
                f"{self._present.name} is given a loss, but the supernet computed nothing in it; call the supernet "
                "within the phase"
            )
        return loss

    def _update_logits(self, task_loss: Tensor, step: int) -> None:
        schedule, phase, draw = self.schedule, self._present, self.context.draw
        assert phase is not None
        loss, phase.parts = self.objective(task_loss, draw, schedule.time(step), schedule.searching_epochs)
        if not loss.requires_grad:
            raise InputError(f"the loss of {phase.name} does not depend on the architecture; have the supernet give it")
        gradients = torch.autograd.grad(self._scaled(loss), self._logits, allow_unused=True)
        for parameter, gradient in zip(self._logits, gradients, strict=True):
            parameter.grad = None if gradient is None else _averaged(gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.objective.update(schedule.share)


def several_processes() -> bool:
    """Whether this process trains together with others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _averaged(gradient: Tensor) -> Tensor:
    """Mean over all processes, the same in each."""
    if not several_processes():
        return gradient
    mean = gradient.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(mean)
    return mean / torch.distributed.get_world_size()


def _share_logits(logits: Sequence[nn.Parameter]) -> None:
    """Every process starts from the first one's logits."""
    if several_processes():
        for parameter in logits:
            torch.distributed.broadcast(parameter.data, 0)


@contextmanager
def frozen(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """No gradients for weights, and none of the work for them, within this context."""
    learning = [weight for weight in weights if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


@contextmanager
def seeded(seed: int, epoch: int, accelerator: Accelerator) -> Iterator[None]:
    """Random numbers as a function of (seed, process, epoch); the global state comes back afterwards."""
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + epoch) * 1_009 + accelerator.process_index)
        yield


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Give torch's (CPU), NumPy's and Python's random numbers back as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
