"""The loop of a bilevel search, on one device or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import convert_to_fp32, reduce
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from quantnas_ext.distribution.architecture_distribution import Draw
from quantnas_ext.distribution.relaxation import draw_generator
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import activation_quantizers, agree_on_steps, give_steps_a_group
from quantnas_ext.search.loop.best_epoch import BestEpoch
from quantnas_ext.search.loop.checkpoint import load_checkpoint, save_checkpoint
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.fingerprint import differences, search_fingerprint
from quantnas_ext.search.loop.inputs import BoundStrategy, SearchData
from quantnas_ext.search.loop.lightning import architecture_optimizer
from quantnas_ext.search.loop.phases import frozen, seeded
from quantnas_ext.search.loop.sampling import EpochSampler
from quantnas_ext.search.objective import entropy_weight


@dataclass
class _Progress:
    epoch: int = 0
    step: int = 0
    records: list[EpochRecord] = field(default_factory=list)


class _Prepared(nn.Module):
    """What Accelerate prepares in place of the supernet, as it patches ``forward`` of what it prepares.

    A patched supernet would compute in mixed precision outside of the search as well, and so would all that is derived.
    """

    def __init__(self, supernet: nn.Module) -> None:
        super().__init__()
        self.supernet = supernet

    def forward(self, *inputs: Any) -> Any:
        return self.supernet(*inputs)


class BilevelSearch:
    """One search: the objects that Accelerate has prepared, and the loop.

    Args:
        data: what it learns from.
        strategy: what it searches with.
        accelerator: of this process.
        model: the supernet.
        checkpoint: file to go on from, written after every epoch; None for none.
        on_epoch: called on the main process with the record of every epoch.
    """

    def __init__(
        self,
        data: SearchData,
        strategy: BoundStrategy,
        accelerator: Accelerator,
        model: nn.Module,
        *,
        checkpoint: Path | None,
        on_epoch: Callable[[EpochRecord], None] | None,
    ) -> None:
        options = data.options
        self.data, self.strategy, self.accelerator = data, strategy, accelerator
        self.options, self.checkpoint, self.on_epoch = options, checkpoint, on_epoch
        self.searching_epochs = options.epochs - strategy.options.warmup_epochs
        self.distribution, self.objective = strategy.context.distribution, strategy.objective
        self.distribution.to(accelerator.device)
        self.objective.to(accelerator.device)
        logits = list(self.distribution.parameters())
        self.arch_optimizer = architecture_optimizer(self.distribution, strategy.options.architecture_learning_rate)
        ignored = {id(parameter) for parameter in logits}
        # NNI's own supernet modules register the logits they use. They are averaged here, not by DDP.
        whole = _Prepared(model)
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            whole, [name for name, p in whole.named_parameters(remove_duplicate=False) if id(p) in ignored]
        )
        self.bare = model
        if options.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.activation_quantizers = list(activation_quantizers(model))
        self.weights = [parameter for parameter in model.parameters() if id(parameter) not in ignored]
        optimizer = optim.Adam(self.weights, options.weight_learning_rate, weight_decay=options.weight_decay)
        give_steps_a_group(optimizer, model)
        self.model, self.optimizer = accelerator.prepare(whole, optimizer)
        total = options.epochs * data.steps_per_epoch
        self.scheduler = optim.lr_scheduler.CosineAnnealingLR(self.optimizer.optimizer, total)
        self.train_loader = self._loader(data.train, options.seed)
        self.validation_loader = self._loader(data.validation, options.seed + 1)
        self.progress = _Progress()
        self.best = BestEpoch(model, strategy.context, accelerator)
        self.fingerprint: dict[str, Any] = {}
        for parameter in logits:  # every process starts from the main process's logits
            if accelerator.num_processes > 1:
                torch.distributed.broadcast(parameter.data, 0)

    def _loader(self, dataset: Dataset[Any], seed: int) -> Any:
        samples = self.data.steps_per_epoch * self.options.batch_size * self.accelerator.num_processes
        sampler = EpochSampler(len(dataset), samples, seed)  # type: ignore[arg-type]
        loader = DataLoader(dataset, self.options.batch_size, sampler=sampler, num_workers=self.options.workers)
        return self.accelerator.prepare(loader)

    def run(self) -> float:
        """Search, from the checkpoint where there is one.

        Returns:
            Mean validation loss of the last epoch.

        Raises:
            InputError: for a checkpoint of another search.
            FloatingPointError: when the loss stops being a finite number.

        With ``derive_from="best"`` model and distribution are then those of the best epoch, and the loss is its.
        """
        options, data, last_step = self.options, self.data, self.options.epochs * self.data.steps_per_epoch
        best = self.strategy.options.derive_from == "best"
        if self.checkpoint is not None:
            self.fingerprint = search_fingerprint(data, self.strategy, self.accelerator, self.bare)
        if self.checkpoint is not None and self.checkpoint.exists():
            self._load(self.checkpoint)
        else:
            self._record(None, None, None)
        hidden = not self.accelerator.is_main_process
        with tqdm(total=last_step, initial=self.progress.step, desc="search", unit="step", disable=hidden) as bar:
            for epoch in range(self.progress.epoch, options.epochs):
                train_loss, val_loss = self._epoch(epoch, bar)
                self.progress.epoch = epoch + 1
                settled_loss = None
                if best and val_loss is not None:
                    # Seed and steps of an epoch that the search does not have: the same noise every time.
                    batches = data.fixed_batches(data.validation)
                    with seeded(options.seed, options.epochs, self.accelerator):
                        settled_loss = self.best.measure(batches, data.loss, options.seed, last_step)
                    self.best.offer(settled_loss)
                self._record(train_loss, val_loss, settled_loss)
                if self.checkpoint is not None and self.accelerator.is_main_process:
                    self._save(self.checkpoint)
        last = self.best.restore() if best else self.progress.records[-1].val_loss
        return math.nan if last is None else last

    def _epoch(self, epoch: int, bar: Any) -> tuple[float, float | None]:
        data, device = self.data, self.accelerator.device
        warmup, steps = self.strategy.options.warmup_epochs, data.steps_per_epoch
        searching = epoch >= warmup
        train_losses, val_losses = torch.zeros((), device=device), torch.zeros((), device=device)
        self.model.train()
        for loader, dataset in ((self.train_loader, data.train), (self.validation_loader, data.validation)):
            loader.set_epoch(epoch)
            if hasattr(dataset, "set_epoch"):
                dataset.set_epoch(epoch)
        with seeded(self.options.seed, epoch, self.accelerator):
            for index, (train, validation) in enumerate(zip(self.train_loader, self.validation_loader, strict=True)):
                if searching:
                    t = epoch - warmup + index / steps
                    val_losses += self._architecture_step(validation, t)
                train_losses += self._weight_step(train)
                self.progress.step += 1
                bar.update()
        losses = reduce(torch.stack([train_losses, val_losses]) / steps, "mean").tolist()
        bar.set_postfix(loss=f"{losses[0]:.4f}", epoch=epoch + 1)
        if not all(map(math.isfinite, losses)):
            raise FloatingPointError(
                f"the search's loss is not a finite number in epoch {epoch + 1}; lower the learning rates"
            )
        return losses[0], losses[1] if searching else None

    def _architecture_step(self, batch: Sequence[Tensor], t: float) -> Tensor:
        """Logits down the gradient of the objective; weights get no gradient at all."""
        inputs, targets = batch
        draw = self._draw(0)
        logits = list(self.distribution.parameters())
        with frozen(self.weights):
            with self.accelerator.autocast():
                task_loss = self.data.loss(convert_to_fp32(self.bare(inputs)), targets)
            loss, _ = self.objective(task_loss, draw, t, self.searching_epochs)
            gradients = torch.autograd.grad(loss, logits, allow_unused=True)
        for parameter, gradient in zip(logits, gradients, strict=True):
            parameter.grad = None if gradient is None else reduce(gradient, "mean")
        self.arch_optimizer.step()
        self.arch_optimizer.zero_grad()
        self.objective.update(1 / (self.searching_epochs * self.data.steps_per_epoch))
        return task_loss.detach()

    def _draw(self, phase: int) -> Draw:
        """The draw of a phase of this step, the same on all processes; temperatures end with the last step."""
        steps, seed = self.data.steps_per_epoch, self.options.seed
        warmup, total = self.strategy.options.warmup_epochs * steps, self.options.epochs * steps
        progress = (self.progress.step - warmup) / max(1, total - warmup - 1)
        self.strategy.context.bank.begin(seed, self.accelerator.process_index, self.progress.step, phase)
        return self.distribution.draw(progress, draw_generator(seed, self.progress.step, phase))

    def _weight_step(self, batch: Sequence[Tensor]) -> Tensor:
        inputs, targets = batch
        with torch.no_grad():
            self._draw(1)
        self.optimizer.zero_grad()
        with self.accelerator.autocast():
            loss = self.data.loss(self.model(inputs), targets)
        self.accelerator.backward(loss)
        if self.accelerator.num_processes > 1:
            agree_on_steps(self.activation_quantizers)  # before the optimizer sees steps that differ
        if self.strategy.options.gradient_clip is not None:
            self.accelerator.clip_grad_norm_(self.weights, self.strategy.options.gradient_clip)
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()

    @torch.no_grad()
    def _record(self, train_loss: float | None, val_loss: float | None, settled_loss: float | None) -> None:
        draw = self.distribution.settle()
        t = self.progress.epoch - 1 - self.strategy.options.warmup_epochs
        record = EpochRecord(
            epoch=self.progress.epoch,
            step=self.progress.step,
            probabilities=self.distribution.probabilities(),
            train_loss=train_loss,
            val_loss=val_loss,
            settled_loss=settled_loss,
            expected_costs=self.objective.expected_costs(draw),
            multipliers=self.objective.budget_multipliers(),
            entropy=float(self.distribution.entropy(draw)),
            entropy_weight=entropy_weight(self.objective.entropy, t, self.searching_epochs) if t >= 0 else 0.0,
        )
        self.progress.records.append(record)
        if self.on_epoch is not None and self.accelerator.is_main_process:
            self.on_epoch(record)

    def _stateful(self) -> dict[str, Any]:
        """What has a state dict of its own, by its key in a checkpoint."""
        return {
            "model": self.bare,
            "distribution": self.distribution,
            "objective": self.objective,
            "optimizer": self.optimizer,
            "architecture_optimizer": self.arch_optimizer,
            "scheduler": self.scheduler,
        }

    def _save(self, path: Path) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "records": [asdict(record) for record in self.progress.records],
            "best": self.best.state,
        }
        save_checkpoint(state | {name: part.state_dict() for name, part in self._stateful().items()}, path)

    def _load(self, path: Path) -> None:
        stateful = self._stateful()
        state = load_checkpoint(path, required=("fingerprint", "epoch", "step", "records", "best", *stateful))
        fingerprint = state["fingerprint"] if isinstance(state["fingerprint"], dict) else {}
        if others := differences(fingerprint, self.fingerprint):
            more = f" and {len(others) - 4} more" if len(others) > 4 else ""
            raise InputError(
                f"{path} belongs to a search with other settings: {', '.join(others[:4])}{more}; use the configuration "
                "and data it was started with, or another run folder"
            )
        for name, part in stateful.items():
            part.load_state_dict(state[name])
        records = [EpochRecord(**record) for record in state["records"]]
        self.progress = _Progress(state["epoch"], state["step"], records)
        self.best.state = state["best"]
        if self.on_epoch is not None and self.accelerator.is_main_process:
            for record in records:
                self.on_epoch(record)
