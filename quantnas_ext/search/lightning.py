"""The search inside PyTorch Lightning, for NNI's own evaluators."""

from __future__ import annotations

from typing import Any

import torch
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from torch import nn, optim

from quantnas_ext.errors import InputError
from quantnas_ext.search.distribution import ArchitectureDistribution, Draw
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.search.relaxation import draw_generator
from quantnas_ext.search.supernet_context import SupernetContext


def architecture_optimizer(distribution: ArchitectureDistribution, learning_rate: float) -> optim.Adam:
    """Adam with betas (0.5, 0.999) and no weight decay on the logits (DARTS, Liu et al., ICLR 2019)."""
    return optim.Adam(distribution.parameters(), learning_rate, betas=(0.5, 0.999))


class QuantNASLightningModule(DartsLightningModule):
    """First-order bilevel search around a Lightning evaluator's module.

    Args:
        training_module: the evaluator's module, which computes losses and owns the weight optimizer.
        context: of the supernet in ``training_module``.
        objective: loss of the architecture step.
        architecture_learning_rate: Adam's, for the logits.
        gradient_clip_val: largest gradient norm of the weights; None for no clipping.
        warmup_epochs: epochs at the start without architecture steps.
    """

    def __init__(
        self,
        training_module: Any,
        context: SupernetContext,
        objective: SearchObjective,
        *,
        architecture_learning_rate: float,
        gradient_clip_val: float | None,
        warmup_epochs: int,
    ) -> None:
        super().__init__(
            training_module,
            arc_learning_rate=architecture_learning_rate,
            gradient_clip_val=gradient_clip_val,
            warmup_epochs=warmup_epochs,
        )
        self._context = (context,)
        self.distribution = context.distribution
        self.objective = objective

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """One architecture step on ``batch["val"]`` (after the warm-up), one weight step on ``batch["train"]``."""
        epochs = (self.trainer.max_epochs or 1) - self.warmup_epochs
        t = self.trainer.current_epoch - self.warmup_epochs + batch_idx / max(1, int(self.trainer.num_training_batches))
        if t >= 0:
            optimizer = self.architecture_optimizers()
            optimizer.zero_grad()
            draw = self._draw(batch_idx, t / epochs, 0)
            loss = _loss(self.training_module.training_step(batch["val"], 2 * batch_idx))
            loss, parts = self.objective(loss, draw, t, epochs)
            self.log_dict({f"search/{name}": value.float() for name, value in parts.items()})
            self.manual_backward(loss)
            optimizer.step()
            self.objective.update(1 / (epochs * max(1, int(self.trainer.num_training_batches))))
        with torch.no_grad():
            self._draw(batch_idx, t / epochs, 1)
        output = self.training_module.training_step(batch["train"], 2 * batch_idx + 1)
        self.advance_optimization(_loss(output), batch_idx, self.gradient_clip_val)
        self.advance_lr_schedulers(batch_idx)
        return output

    def on_train_start(self) -> Any:
        """As the evaluator's module has it; all processes agree on the seed of the draws."""
        self._seed = self.trainer.strategy.broadcast(torch.initial_seed())
        return super().on_train_start()

    def _draw(self, batch_idx: int, progress: float, phase: int) -> Draw:
        """The draw of a phase (0: architecture, 1: weights) of a step, the same on all processes."""
        step = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        self._context[0].bank.begin(self._seed, self.trainer.global_rank, step, phase)
        return self.distribution.draw(progress, draw_generator(self._seed, step, phase))

    def on_fit_start(self) -> Any:
        """Refuse trainers whose length is unknown before the first step: the schedules depend on it.

        Raises:
            InputError: without a number of epochs above the warm-up's, or with data of unknown length.
        """
        epochs = self.trainer.max_epochs or -1
        if epochs <= self.warmup_epochs:
            raise InputError(
                f"a trainer with max_epochs={epochs} leaves no epoch after a warm-up of {self.warmup_epochs}; "
                "set max_epochs to more than that"
            )
        return super().on_fit_start()

    def on_train_epoch_start(self) -> Any:
        """As the evaluator's module has it; NNI's freezing of logits for the warm-up is not needed here."""
        return BaseOneShotLightningModule.on_train_epoch_start(self)

    def export(self) -> dict[str, Any]:
        """The architecture found, an NNI sample."""
        return self.objective.most_likely()

    def arch_parameters(self) -> list[nn.Parameter]:
        """The logits."""
        return list(self.distribution.parameters())

    def configure_architecture_optimizers(self) -> optim.Optimizer:
        """Adam on the logits."""
        return architecture_optimizer(self.distribution, self.arc_learning_rate)


def _loss(output: Any) -> Any:
    return output["loss"] if isinstance(output, dict) else output
