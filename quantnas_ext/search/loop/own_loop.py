"""A search in a training loop of the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from quantnas_ext.errors import InputError, shown
from quantnas_ext.quantization import activation_quantizers, agree_on_steps, give_steps_a_group
from quantnas_ext.search.loop.inputs import BoundStrategy
from quantnas_ext.search.loop.lightning import architecture_optimizer
from quantnas_ext.search.loop.phases import Phase, Phases, several_processes
from quantnas_ext.search.loop.schedule import Schedule


class OwnLoop:
    """The phases of a search whose loop, data and weight optimizer are the user's.

    Args:
        supernet: on its device.
        strategy: what it searches with.
        optimizer: of the supernet's weights, before a schedule is made for it: learned steps get a group of their own.
        schedule: how long the search is.
        seed: of draws and noise.

    Raises:
        InputError: for an optimizer that is none, or not of this supernet's weights.
    """

    def __init__(
        self, supernet: nn.Module, strategy: BoundStrategy, optimizer: optim.Optimizer, schedule: Schedule, seed: int
    ) -> None:
        distribution = strategy.context.distribution
        logits = {id(parameter) for parameter in distribution.parameters()}
        weights = {name: p for name, p in supernet.named_parameters() if id(p) not in logits}
        _check_optimizer(optimizer, weights)
        device = next(iter(weights.values())).device
        distribution.to(device)
        strategy.objective.to(device)
        for group in optimizer.param_groups:  # NNI's own supernet modules register the logits they use
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in logits]
        give_steps_a_group(optimizer, supernet)
        names = [name for name, p in supernet.named_parameters(remove_duplicate=False) if id(p) in logits]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(supernet, names)
        self.supernet, self.optimizer, self.clip = supernet, optimizer, strategy.options.gradient_clip
        self.architecture_optimizer = architecture_optimizer(distribution, strategy.options.architecture_learning_rate)
        self.phases = Phases(
            strategy.context, strategy.objective, schedule, list(weights.values()), self.architecture_optimizer,
            seed=seed, process=torch.distributed.get_rank() if several_processes() else 0,
        )  # fmt: skip
        self._quantizers = list(activation_quantizers(supernet))

    @contextmanager
    def architecture(self, step: int) -> Iterator[Phase]:
        """``Phases.architecture`` of a supernet in training mode."""
        self._require_training()
        with self.phases.architecture(step) as phase:
            yield phase

    @contextmanager
    def weight(self, step: int) -> Iterator[Phase]:
        """``Phases.weight`` with a step of the optimizer."""
        self._require_training()
        with self.phases.weight(step, self._update_weights) as phase:
            yield phase

    def _require_training(self) -> None:
        if not self.supernet.training:
            raise InputError("the supernet is in evaluation mode, where it has no noise; call supernet.train() first")

    def _update_weights(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        if all(weight.grad is None for weight in self.phases.weights):
            raise InputError("the loss of a weight phase depends on no weight; do not detach what the supernet gives")
        if several_processes():
            agree_on_steps(self._quantizers)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.phases.weights, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()


def _check_optimizer(optimizer: Any, weights: Mapping[str, nn.Parameter]) -> None:
    """Refuse an optimizer that lacks weights of the supernet, such as one that was made before it."""
    if not isinstance(optimizer, optim.Optimizer):
        raise InputError(f"{shown(optimizer)} is no optimizer; give one of torch.optim, of supernet.parameters()")
    given = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, p in weights.items() if id(p) not in given and p.requires_grad]
    if missing:
        raise InputError(
            f"the optimizer lacks {len(missing)} of {len(weights)} weights of the supernet, such as {missing[0]!r}; "
            "make it of supernet.parameters() after mutate_model; requires_grad_(False) keeps some from learning"
        )
