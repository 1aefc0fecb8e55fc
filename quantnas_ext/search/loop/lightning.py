"""The search inside PyTorch Lightning, for NNI's own evaluators."""

from __future__ import annotations

from typing import Any, cast

import torch
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel

from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import activation_quantizers, agree_on_steps
from quantnas_ext.search.loop.best_epoch import KeptEpoch, measuring
from quantnas_ext.search.loop.phases import Phases
from quantnas_ext.search.loop.sampling import FIXED_BATCHES, FixedBatches
from quantnas_ext.search.loop.schedule import Schedule
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
        self._seed: Any = None  # of draws and noise; a number once the training starts
        self._best_state: dict[str, Any] | None = None
        self.derive_from = options.derive_from
        self.distribution = context.distribution
        self.objective = objective

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """One architecture step on ``batch["val"]`` (after the warm-up), one weight step on ``batch["train"]``."""
        step = self.trainer.current_epoch * self._phases.schedule.steps_per_epoch + batch_idx
        if self._phases.schedule.searching(step):
            with self._phases.architecture(step) as phase:
                phase.minimize(_loss(self.training_module.training_step(batch["val"], 2 * batch_idx)))
            self.log_dict({f"search/{name}": value.float() for name, value in phase.parts.items()})

        def update(loss: Any) -> None:
            self.advance_optimization(loss, batch_idx, self.gradient_clip_val)

        with self._phases.weight(step, update) as phase:
            output = self.training_module.training_step(batch["train"], 2 * batch_idx + 1)
            phase.minimize(_loss(output))
        self.advance_lr_schedulers(batch_idx)
        return output

    def on_after_backward(self) -> Any:
        """Have all processes agree on activation steps before they move."""
        if self.trainer.world_size > 1:
            agree_on_steps(self._quantizers)
        return super().on_after_backward()

    def setup(self, stage: str) -> Any:  # type: ignore[override]
        """As the evaluator's module has it; DDP is told to leave the logits alone, whose phase is not its concern."""
        logits = {id(parameter) for parameter in self.arch_parameters()}
        names = [name for name, p in self.named_parameters(remove_duplicate=False) if id(p) in logits]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)
        return super().setup(stage)

    def on_train_start(self) -> Any:
        """As the evaluator's module has it; all processes agree on the seed of the draws.

        Raises:
            InputError: when the best epoch is to be found on validation data that cannot be gone through by index.
        """
        self._seed = self.trainer.strategy.broadcast(torch.initial_seed() if self._seed is None else self._seed)
        logits = {id(parameter) for parameter in self.arch_parameters()}
        self._phases = Phases(
            self._context[0],
            self.objective,
            Schedule(self.trainer.max_epochs or 1, max(1, int(self.trainer.num_training_batches)), self.warmup_epochs),
            [parameter for parameter in self.training_module.parameters() if id(parameter) not in logits],
            self.architecture_optimizers(),
            seed=self._seed,
            process=self.trainer.global_rank,
            scaled=lambda loss: self.trainer.precision_plugin.pre_backward(loss, self),
        )
        self._quantizers = list(activation_quantizers(self.training_module))
        if self.derive_from == "best":
            self._best = KeptEpoch(self.model, self.distribution)
            self._best.state = self._best_state
            self._batches = self._fixed_batches()
        return super().on_train_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a search goes on with besides its modules and optimizers; then as the evaluator's module has it."""
        checkpoint["quantnas"] = {"seed": self._seed, "best": self._best.state if self.derive_from == "best" else None}
        self.training_module.on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what ``on_save_checkpoint`` has kept."""
        own = checkpoint.get("quantnas", {})
        self._seed, self._best_state = own.get("seed"), own.get("best")
        self.training_module.on_load_checkpoint(checkpoint)

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

    def on_fit_start(self) -> Any:
        """Refuse trainers whose length is unknown before the first step: the schedules depend on it.

        Raises:
            InputError: without a number of epochs above the warm-up's, or for several processes that are not DDP's, or
                where DDP would wait for the weights of candidates that a draw leaves out.
        """
        epochs = self.trainer.max_epochs or -1
        if epochs <= self.warmup_epochs:
            raise InputError(
                f"a trainer with max_epochs={epochs} leaves no epoch after a warm-up of {self.warmup_epochs}; "
                "set max_epochs to more than that"
            )
        if self.trainer.world_size > 1:
            ddp = self.trainer.strategy.model
            if not isinstance(ddp, DistributedDataParallel):
                raise InputError(
                    f"a search in {self.trainer.world_size} processes needs DDP, which trainer strategy "
                    f"{type(self.trainer.strategy).__name__} is not; use strategy='ddp'"
                )
            if self.distribution.relaxation.samples and not ddp.find_unused_parameters:
                raise InputError(
                    f"draws of relaxation '{self.distribution.relaxation.name}' leave candidates out, whose weights "
                    "strategy='ddp' would wait for; use strategy='ddp_find_unused_parameters_true'"
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
