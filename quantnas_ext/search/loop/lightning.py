"""The search inside PyTorch Lightning, for NNI's own evaluators."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import torch
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from torch import nn, optim

from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution, Draw
from quantnas_ext.distribution.relaxation import draw_generator
from quantnas_ext.errors import InputError
from quantnas_ext.search.loop.best_epoch import KeptEpoch, measuring
from quantnas_ext.search.loop.phases import frozen
from quantnas_ext.search.loop.sampling import FIXED_BATCHES, FixedBatches
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.search.options import StrategyOptions
from quantnas_ext.supernet.context import SupernetContext


def architecture_optimizer(distribution: ArchitectureDistribution, learning_rate: float) -> optim.Adam:
    """Adam with betas (0.5, 0.999) and no weight decay on the logits (DARTS, Liu et al., ICLR 2019)."""
    return optim.Adam(distribution.parameters(), learning_rate, betas=(0.5, 0.999))


class QuantNASLightningModule(DartsLightningModule):
    """First-order bilevel search around a Lightning evaluator's module.

    Args:
        training_module: the evaluator's module, which computes losses and owns the weight optimizer.
        context: of the supernet in ``training_module``.
        objective: loss of the architecture step.
        options: of the strategy. To ``derive_from`` the best epoch its loss is ``training_step``'s, without logging, on
            the same validation batches every time, at most ``FIXED_BATCHES``. It is logged as ``search/settled_loss``.
    """

    def __init__(
        self, training_module: Any, context: SupernetContext, objective: SearchObjective, options: StrategyOptions
    ) -> None:
        super().__init__(
            training_module,
            arc_learning_rate=options.architecture_learning_rate,
            gradient_clip_val=options.gradient_clip,
            warmup_epochs=options.warmup_epochs,
        )
        self._context = (context,)
        self.derive_from = options.derive_from
        self.distribution = context.distribution
        self.objective = objective

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """One architecture step on ``batch["val"]`` (after the warm-up), one weight step on ``batch["train"]``.

        In the former, weights get no gradient (in one process, where that can be).
        """
        epochs = (self.trainer.max_epochs or 1) - self.warmup_epochs
        t = self.trainer.current_epoch - self.warmup_epochs + batch_idx / max(1, int(self.trainer.num_training_batches))
        if t >= 0:
            optimizer = self.architecture_optimizers()
            optimizer.zero_grad()
            draw = self._draw(batch_idx, t / epochs, 0)
            # In several processes the gradients of all parameters are awaited, so that none may be missing.
            with frozen(self._weights) if self.trainer.world_size == 1 else nullcontext():
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
        """As the evaluator's module has it; all processes agree on the seed of the draws.

        Raises:
            InputError: when the best epoch is to be found on validation data that cannot be gone through by index.
        """
        self._seed = self.trainer.strategy.broadcast(torch.initial_seed())
        logits = {id(parameter) for parameter in self.distribution.parameters()}
        self._weights = [parameter for parameter in self.training_module.parameters() if id(parameter) not in logits]
        if self.derive_from == "best":
            self._best = KeptEpoch(self.model, self.distribution)
            self._batches = self._fixed_batches()
        return super().on_train_start()

    def on_train_epoch_end(self) -> Any:
        """Measure the epoch if the best one is wanted; then as the evaluator's module has it."""
        if self.derive_from == "best" and self.trainer.current_epoch >= self.warmup_epochs:
            loss = self._measure()
            self._best.offer(loss)
            self.log("search/settled_loss", loss)
        return super().on_train_epoch_end()

    def on_train_end(self) -> Any:
        """Go back to the best epoch if that is wanted; then as the evaluator's module has it."""
        if self.derive_from == "best":
            self._best.restore()
        return super().on_train_end()

    def _fixed_batches(self) -> FixedBatches:
        loader = cast("dict[str, Any]", self.trainer.train_dataloader)["val"]
        dataset: Any = getattr(loader, "dataset", None)
        size = getattr(loader, "batch_size", None)
        if not size or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise InputError(
                "the best epoch cannot be found on these validation data; give a DataLoader with a batch size and a "
                "dataset that has a length, or use derive_from='last'"
            )
        batches, epoch = min(int(self.trainer.num_training_batches), FIXED_BATCHES), self.trainer.max_epochs or 1
        return FixedBatches(
            dataset, size, batches, seed=self._seed % 2**31, epoch=epoch, workers=loader.num_workers,
            collate=loader.collate_fn,
        )  # fmt: skip

    def _measure(self) -> float:
        """Loss of the distribution itself: the same batches, random numbers and noise after every epoch."""
        step = (self.trainer.max_epochs or 1) * int(self.trainer.num_training_batches)
        devices = [self.device] if self.device.type == "cuda" else []
        log, losses = self.training_module.log, []
        self.training_module.log = lambda *_, **__: None  # this is no training
        try:
            with (
                measuring(self.model, self.distribution),
                torch.random.fork_rng(devices=devices),
                self.trainer.precision_plugin.val_step_context(),
            ):
                torch.manual_seed(self._seed)
                for index, batch in enumerate(self._batches):
                    self._context[0].bank.begin(self._seed, 0, step + index, 0)
                    batch = self.trainer.strategy.batch_to_device(batch)
                    losses.append(_loss(self.training_module.training_step(batch, index)).double())
        finally:
            self.training_module.log = log
        if hasattr(self._batches.dataset, "set_epoch"):
            self._batches.dataset.set_epoch(self.trainer.current_epoch + 1)
        return float(torch.stack(losses).mean())

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
