"""The bilevel search on Hugging Face Accelerate: one device or several, by NNI's evaluator interface."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nni
import torch
from accelerate import Accelerator
from accelerate.utils import reduce
from nni.nas.evaluator import Evaluator
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from quantnas_ext.errors import InputError
from quantnas_ext.search.budget import Budget
from quantnas_ext.search.checkpoint import load_checkpoint, save_checkpoint
from quantnas_ext.search.distribution import ArchitectureDistribution, Draw
from quantnas_ext.search.lightning import architecture_optimizer
from quantnas_ext.search.objective import Penalty, SearchObjective, entropy_weight
from quantnas_ext.search.processes import process_state
from quantnas_ext.search.relaxation import draw_generator
from quantnas_ext.search.sampling import EpochSampler


@dataclass(frozen=True)
class EpochRecord:
    """What a search looked like at the end of an epoch.

    Attributes:
        epoch: epochs done; 0 is the state before training.
        step: steps done.
        probabilities: ``softmax(logits)`` by label.
        train_loss: mean task loss of the epoch's weight steps.
        val_loss: mean task loss of its architecture steps; None in the warm-up.
        expected_costs: expectation of every cost by name, in its unit.
        entropy: sum of all blocks' joint entropies, nats.
        entropy_weight: its weight at the end of the epoch.
    """

    epoch: int
    step: int
    probabilities: dict[str, list[float]]
    train_loss: float | None
    val_loss: float | None
    expected_costs: dict[str, float]
    entropy: float
    entropy_weight: float


@dataclass(frozen=True)
class SearchSettings:
    """What a strategy asks of an evaluator (see ``QuantNAS`` for the meanings)."""

    distribution: ArchitectureDistribution
    objective: SearchObjective
    architecture_learning_rate: float
    warmup_epochs: int
    gradient_clip: float | None


@dataclass
class _Progress:
    epoch: int = 0
    step: int = 0
    records: list[EpochRecord] = field(default_factory=list)


class AccelerateEvaluator(Evaluator):
    """Runs the first-order bilevel search of a ``QuantNAS`` strategy on Accelerate.

    In every step the logits take a step on a validation batch, then the weights one on a training batch (DARTS, Liu et
    al., ICLR 2019). Random numbers, data order and learning rate are functions of (seed, process, epoch), so a search
    that is interrupted and started again goes on exactly as it would have.

    Args:
        train_dataset: for the weights; items are (input, target) tensors. One with ``set_epoch`` is told the epoch.
        validation_dataset: likewise, for the logits; disjoint from the former.
        epochs: passes to make.
        batch_size: samples in a batch of one process.
        steps_per_epoch: batches an epoch; by default as many as ``train_dataset`` fills.
        loss: of outputs and targets; L1 by default.
        learning_rate: Adam's for the weights, at the start of a cosine to zero.
        weight_decay: Adam's for the weights.
        seed: of data order and noise.
        workers: processes that load data.
        mixed_precision: ``"no"`` or ``"bf16"``.
        channels_last: keep images and kernels with their channels last, which most convolutions prefer.
        checkpoint: file that is written after every epoch, and that a later run starts from where it is present.
        on_epoch: called on the main process with the record of every epoch, the state before the first included.

    Raises:
        InputError: for an empty dataset or one that does not fill a batch, or an unknown mixed precision.
    """

    def __init__(
        self,
        train_dataset: Dataset[Any],
        validation_dataset: Dataset[Any],
        *,
        epochs: int,
        batch_size: int,
        steps_per_epoch: int | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 3e-8,
        seed: int = 0,
        workers: int = 0,
        mixed_precision: str = "no",
        channels_last: bool = False,
        checkpoint: Path | None = None,
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> None:
        for name, value in (("epochs", epochs), ("batch_size", batch_size), ("steps_per_epoch", steps_per_epoch)):
            if value is not None and value < 1:
                raise InputError(f"{name} {value!r} of a search is not possible; use at least 1")
        if mixed_precision not in ("no", "bf16"):
            raise InputError(f"mixed precision {mixed_precision!r} is not supported in a search; use 'no' or 'bf16'")
        for name, dataset in (("training", train_dataset), ("validation", validation_dataset)):
            if len(dataset) < 1:  # type: ignore[arg-type]
                raise InputError(f"the {name} part of the search data is empty; give it at least one image")
        self.train_dataset = train_dataset
        self.validation_dataset = validation_dataset
        self.epochs = epochs
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch or max(1, len(train_dataset) // batch_size)  # type: ignore[arg-type]
        self.loss = loss or nn.L1Loss()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.seed = seed
        self.workers = workers
        self.mixed_precision = mixed_precision
        self.channels_last = channels_last
        self.checkpoint = checkpoint
        self.on_epoch = on_epoch
        self._settings: SearchSettings | None = None

    def bind(
        self,
        distribution: ArchitectureDistribution,
        objective: SearchObjective,
        *,
        architecture_learning_rate: float,
        warmup_epochs: int,
        gradient_clip: float | None,
    ) -> AccelerateEvaluator:
        """Take over what a strategy searches with; called by ``QuantNAS``.

        Raises:
            InputError: when the warm-up leaves no epoch for the search.
        """
        if warmup_epochs >= self.epochs:
            raise InputError(
                f"a warm-up of {warmup_epochs} epochs leaves nothing of {self.epochs} epochs; use fewer or more epochs"
            )
        self._settings = SearchSettings(
            distribution, objective, architecture_learning_rate, warmup_epochs, gradient_clip
        )
        return self

    def evaluate(self, model: nn.Module) -> float:
        """Search on a supernet.

        Args:
            model: the supernet that the strategy has made.

        Returns:
            Mean validation loss of the last epoch, which NNI gets as the final result.

        Raises:
            InputError: without a ``QuantNAS`` strategy, or for a checkpoint of another search.
            FloatingPointError: when the loss stops being a finite number.
        """
        if self._settings is None:
            raise InputError("AccelerateEvaluator searches; use it with the QuantNAS strategy")
        process_state()
        accelerator = Accelerator(mixed_precision=self.mixed_precision)
        run = _Search(self, self._settings, accelerator, model)
        result = run.run()
        if nni.get_current_parameter() is not None:
            nni.report_final_result(result)
        return result


class _Search:
    """One search: the prepared objects and the loop."""

    def __init__(
        self, evaluator: AccelerateEvaluator, settings: SearchSettings, accelerator: Accelerator, model: nn.Module
    ) -> None:
        self.evaluator, self.settings, self.accelerator = evaluator, settings, accelerator
        self.distribution, self.objective = settings.distribution, settings.objective
        self.distribution.to(accelerator.device)
        self.objective.to(accelerator.device)
        logits = list(self.distribution.parameters())
        self.arch_optimizer = architecture_optimizer(self.distribution, settings.architecture_learning_rate)
        ignored = {id(parameter) for parameter in logits}
        # NNI's own supernet modules register the logits they use. They are averaged here, not by DDP.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            model, [name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in ignored]
        )
        self.bare = model
        if evaluator.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = [parameter for parameter in model.parameters() if id(parameter) not in ignored]
        optimizer = optim.Adam(weights, evaluator.learning_rate, weight_decay=evaluator.weight_decay)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        total = evaluator.epochs * evaluator.steps_per_epoch
        self.scheduler = optim.lr_scheduler.CosineAnnealingLR(self.optimizer.optimizer, total)
        self.train_loader = self._loader(evaluator.train_dataset, evaluator.seed)
        self.validation_loader = self._loader(evaluator.validation_dataset, evaluator.seed + 1)
        self.progress = _Progress()
        for parameter in logits:  # every process starts from the main process's logits
            if accelerator.num_processes > 1:
                torch.distributed.broadcast(parameter.data, 0)

    def _loader(self, dataset: Dataset[Any], seed: int) -> Any:
        evaluator = self.evaluator
        samples = evaluator.steps_per_epoch * evaluator.batch_size * self.accelerator.num_processes
        sampler = EpochSampler(len(dataset), samples, seed)  # type: ignore[arg-type]
        loader = DataLoader(dataset, evaluator.batch_size, sampler=sampler, num_workers=evaluator.workers)
        return self.accelerator.prepare(loader)

    def run(self) -> float:
        evaluator = self.evaluator
        if evaluator.checkpoint is not None and evaluator.checkpoint.exists():
            self._load(evaluator.checkpoint)
        else:
            self._record(None, None)
        bar = tqdm(
            total=evaluator.epochs * evaluator.steps_per_epoch,
            initial=self.progress.step,
            desc="search",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        with bar:
            for epoch in range(self.progress.epoch, evaluator.epochs):
                train_loss, val_loss = self._epoch(epoch, bar)
                self.progress.epoch = epoch + 1
                self._record(train_loss, val_loss)
                if evaluator.checkpoint is not None and self.accelerator.is_main_process:
                    self._save(evaluator.checkpoint)
        last = self.progress.records[-1].val_loss
        return math.nan if last is None else last

    def _epoch(self, epoch: int, bar: Any) -> tuple[float, float | None]:
        evaluator, device = self.evaluator, self.accelerator.device
        searching = epoch >= self.settings.warmup_epochs
        train_losses, val_losses = torch.zeros((), device=device), torch.zeros((), device=device)
        self.model.train()
        for loader, dataset in (
            (self.train_loader, evaluator.train_dataset),
            (self.validation_loader, evaluator.validation_dataset),
        ):
            loader.set_epoch(epoch)
            if hasattr(dataset, "set_epoch"):
                dataset.set_epoch(epoch)
        with _seeded(evaluator.seed, epoch, self.accelerator):
            for index, (train, validation) in enumerate(zip(self.train_loader, self.validation_loader, strict=True)):
                if searching:
                    t = epoch - self.settings.warmup_epochs + index / evaluator.steps_per_epoch
                    val_losses += self._architecture_step(validation, t)
                train_losses += self._weight_step(train)
                self.progress.step += 1
                bar.update()
        steps = evaluator.steps_per_epoch
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
        with self.accelerator.autocast():
            task_loss = self.evaluator.loss(self.bare(inputs), targets)
        loss, _ = self.objective(task_loss, draw, t, self.evaluator.epochs - self.settings.warmup_epochs)
        logits = list(self.distribution.parameters())
        gradients = torch.autograd.grad(loss, logits, allow_unused=True)
        for parameter, gradient in zip(logits, gradients, strict=True):
            parameter.grad = None if gradient is None else reduce(gradient, "mean")
        self.arch_optimizer.step()
        epochs = self.evaluator.epochs - self.settings.warmup_epochs
        self.objective.update(1 / (epochs * self.evaluator.steps_per_epoch))
        return task_loss.detach()

    def _draw(self, phase: int) -> Draw:
        """The draw of a phase of this step, the same on all processes; temperatures end with the last step."""
        steps = self.evaluator.steps_per_epoch
        warmup, total = self.settings.warmup_epochs * steps, self.evaluator.epochs * steps
        progress = (self.progress.step - warmup) / max(1, total - warmup - 1)
        return self.distribution.draw(progress, draw_generator(self.evaluator.seed, self.progress.step, phase))

    def _weight_step(self, batch: Sequence[Tensor]) -> Tensor:
        inputs, targets = batch
        with torch.no_grad():
            self._draw(1)
        self.optimizer.zero_grad()
        with self.accelerator.autocast():
            loss = self.evaluator.loss(self.model(inputs), targets)
        self.accelerator.backward(loss)
        if self.progress.step == 0:  # before the optimizer sees weights that differ
            self._spread_steps()
        if self.settings.gradient_clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()

    def _spread_steps(self) -> None:
        """Give the steps that the first batch has set in layers of fixed precision to other processes."""
        if self.accelerator.num_processes > 1:
            for parameter in self.bare.parameters():
                torch.distributed.broadcast(parameter.data, 0)

    @torch.no_grad()
    def _record(self, train_loss: float | None, val_loss: float | None) -> None:
        draw = self.distribution.settle()
        settings, epochs = self.settings, self.evaluator.epochs - self.settings.warmup_epochs
        t = self.progress.epoch - 1 - settings.warmup_epochs
        record = EpochRecord(
            epoch=self.progress.epoch,
            step=self.progress.step,
            probabilities=self.distribution.probabilities(),
            train_loss=train_loss,
            val_loss=val_loss,
            expected_costs=self.objective.expected_costs(draw),
            entropy=float(self.distribution.entropy(draw)),
            entropy_weight=entropy_weight(self.objective.entropy, t, epochs) if t >= 0 else 0.0,
        )
        self.progress.records.append(record)
        if self.evaluator.on_epoch is not None and self.accelerator.is_main_process:
            self.evaluator.on_epoch(record)

    def _save(self, path: Path) -> None:
        state = {
            "settings": self._fingerprint(),
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "records": [asdict(record) for record in self.progress.records],
            "model": self.bare.state_dict(),
            "distribution": self.distribution.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "architecture_optimizer": self.arch_optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        save_checkpoint(state, path)

    def _load(self, path: Path) -> None:
        state = load_checkpoint(path)
        if state.get("settings") != self._fingerprint():
            raise InputError(
                f"{path} belongs to a search with other settings; use the configuration it was started with, "
                "or another run folder"
            )
        self.bare.load_state_dict(state["model"])
        self.distribution.load_state_dict(state["distribution"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.arch_optimizer.load_state_dict(state["architecture_optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        records = [EpochRecord(**record) for record in state["records"]]
        self.progress = _Progress(state["epoch"], state["step"], records)
        if self.evaluator.on_epoch is not None and self.accelerator.is_main_process:
            for record in records:
                self.evaluator.on_epoch(record)

    def _fingerprint(self) -> dict[str, Any]:
        """What must be the same for a search to go on."""
        evaluator = self.evaluator
        return {
            "epochs": evaluator.epochs,
            "steps_per_epoch": evaluator.steps_per_epoch,
            "batch_size": evaluator.batch_size,
            "processes": self.accelerator.num_processes,
            "seed": evaluator.seed,
            "learning_rate": evaluator.learning_rate,
            "architecture_learning_rate": self.settings.architecture_learning_rate,
            "warmup_epochs": self.settings.warmup_epochs,
            "entropy": self.objective.entropy,
            "regularizer": self.objective.regularizer,
            "relaxation": [self.distribution.relaxation.name, *self.distribution.relaxation.temperature],
            "costs": [_describe(goal) for goal in self.objective.goals],
            "choices": {choice.label: list(choice.values) for choice in self.distribution.tree},
        }


def _describe(goal: Penalty | Budget) -> dict[str, Any]:
    numbers = {key: value for key, value in vars(goal).items() if key != "cost"}
    return {"kind": type(goal).__name__, "cost": goal.cost.name, "input": list(goal.cost.input_shape), **numbers}


@contextmanager
def _seeded(seed: int, epoch: int, accelerator: Accelerator) -> Iterator[None]:
    """Random numbers as a function of (seed, process, epoch); the global state comes back afterwards."""
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + epoch) * 1_009 + accelerator.process_index)
        yield
