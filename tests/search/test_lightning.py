"""The search inside Lightning: what its phases compute, and which epoch its result is of."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.evaluator.pytorch.lightning import (
    Classification,
    DataLoader,
    Lightning,
    LightningModule,
    Regression,
    Trainer,
)
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperimentConfig
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from small_searches import batch, prepared
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.errors import InputError
from quantnas_ext.search.experiment import FolderExperiment
from quantnas_ext.search.loop.best_epoch import measuring
from quantnas_ext.search.loop.sampling import FixedBatches
from quantnas_ext.search.strategy import QuantNAS


class LoggedRegression(LightningModule):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.l1_loss(self.model(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.2)


class Watch(Callback):
    """Metrics and distribution at the end of every epoch."""

    def __init__(self) -> None:
        self.epochs: list[tuple[dict[str, float], dict[str, list[float]]]] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        if trainer.current_epoch:
            self.on_fit_end(trainer, module)

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.epochs.append((metrics, module.distribution.probabilities()))


def searched(strategy: QuantNAS, space: Any, validation: Any = None, epochs: int = 8) -> Watch:
    watch = Watch()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    validation = validation or DataLoader(TensorDataset(*batch(1)), batch_size=2, shuffle=True)
    evaluator = Lightning(
        LoggedRegression(),
        Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[watch], **quiet),
        train_dataloaders=DataLoader(TensorDataset(*batch(0)), batch_size=2),
        val_dataloaders=validation,
    )
    torch.manual_seed(3)
    strategy(RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine())
    return watch


@pytest.mark.filterwarnings("ignore")
def test_the_architecture_phase_computes_no_gradient_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    space, strategy = prepared(warmup_epochs=1)
    order: list[str] = []
    draw = ArchitectureDistribution.draw

    def watched(distribution: Any, *arguments: Any) -> Any:
        order.append("architecture" if torch.is_grad_enabled() else "weights")
        return draw(distribution, *arguments)

    monkeypatch.setattr(ArchitectureDistribution, "draw", watched)
    strategy.mutate_model(space)
    monkeypatch.setattr(strategy, "mutate_model", lambda model: model)
    names = {id(parameter): "logits" for parameter in strategy.distribution.parameters()}
    for parameter in {*space.parameters(), *strategy.distribution.parameters()}:
        name = names.get(id(parameter), "weight")
        parameter.register_hook(lambda gradient, name=name: order.append(name))
    searched(strategy, space, epochs=2)
    weights = len({*space.parameters()} - {*strategy.distribution.parameters()})
    phases = " ".join(order).split("weights")
    # Two steps of the warm-up, then two with both phases.
    assert [part.count("logits") > 0 for part in phases] == [False, False, True, True, False]
    assert [part.split().count("weight") for part in phases] == [0, *[weights] * 4]
    assert all("weight" not in part.partition("architecture")[2] for part in phases)
    assert all(parameter.requires_grad for parameter in space.parameters())


@pytest.mark.filterwarnings("ignore")
def test_the_result_is_that_of_the_best_epoch_where_that_is_asked_for() -> None:
    options = {"relaxation": "gumbel", "warmup_epochs": 1, "architecture_learning_rate": 0.3}
    space, strategy = prepared(**options, derive_from="best")
    best = searched(strategy, space)
    space, last_strategy = prepared(**options)
    last = searched(last_strategy, space)
    losses = [metrics.get("search/settled_loss") for metrics, _ in best.epochs]
    assert losses[0] is None and len(losses) == 8
    chosen = min(range(1, 8), key=lambda epoch: losses[epoch])
    assert 1 < chosen < 7  # else this test shows nothing
    probabilities = [found for _, found in best.epochs]
    assert strategy.distribution.probabilities() == probabilities[chosen] == probabilities[-1]
    # Measuring leaves no trace, neither in the search nor in what it logs.
    assert probabilities[:-1] == [found for _, found in last.epochs][:-1] and chosen != 7
    assert [metrics["train_loss_epoch"] for metrics, _ in best.epochs] == [
        metrics["train_loss_epoch"] for metrics, _ in last.epochs
    ]
    assert last_strategy.distribution.probabilities() != probabilities[chosen]
    # The weights are those of the epoch as well: they have its loss again.
    supernet, distribution = strategy.supernet, strategy.distribution
    batches = FixedBatches(TensorDataset(*batch(1)), 2, 2, seed=3, epoch=8)
    found = []
    with measuring(supernet, distribution):  # a training pass would go on looking for activation steps
        for step, (inputs, targets) in enumerate(batches, start=16):
            strategy.context.bank.begin(3, 0, step, 0)
            found.append(nn.functional.l1_loss(supernet(inputs), targets).item())
    assert sum(found) / 2 == pytest.approx(losses[chosen], rel=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_the_best_epoch_on_data_without_a_length_is_refused_before_the_first_step() -> None:
    space, strategy = prepared(derive_from="best")
    before = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    stream = [(inputs[None], targets[None]) for inputs, targets in zip(*batch(1), strict=True)]
    with pytest.raises(InputError, match="best epoch cannot be found on these validation data"):
        searched(strategy, space, validation=stream)
    assert all(torch.equal(tensor, before[name]) for name, tensor in space.state_dict().items() if name in before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [Classification, Regression])
def test_nnis_own_evaluators_search(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where they may write their model as ONNX
    space, strategy = prepared(relaxation="one_path")
    inputs, targets = batch(0)
    of = (inputs, targets.argmax(dim=1)) if kind is Classification else (inputs, targets)  # a class for every pixel
    loaders = [DataLoader(TensorDataset(*of), batch_size=2) for _ in range(2)]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    classes = {"num_classes": 2} if kind is Classification else {}
    evaluator = kind(train_dataloaders=loaders[0], val_dataloaders=loaders[1], max_epochs=2, **quiet, **classes)
    strategy(RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine())
    assert max(strategy.distribution.probabilities()["layer"]) > 0.5001
    assert strategy.derive()(inputs).shape == targets.shape


class Interrupt(Callback):
    """The user's Ctrl-C, in an epoch."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 3 and batch_idx == 0:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore")
def test_an_experiment_that_was_stopped_is_resumed_through_nni_as_if_nothing_had_been(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"relaxation": "gumbel", "derive_from": "best", "architecture_learning_rate": 0.3}

    def experiment(folder: Path, identity: str | None, *callbacks: Callback) -> tuple[Any, QuantNAS]:
        torch.manual_seed(5)
        space, strategy = prepared(**options)
        checkpoints = ModelCheckpoint(folder, save_last=True)
        trainer = Trainer(
            accelerator="cpu", max_epochs=5, logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[checkpoints, *callbacks],
        )  # fmt: skip
        loaders = [DataLoader(TensorDataset(*batch(seed)), batch_size=2) for seed in range(2)]
        evaluator = Lightning(LoggedRegression(), trainer, train_dataloaders=loaders[0], val_dataloaders=loaders[1])
        torch.manual_seed(5)
        config = NasExperimentConfig.default(space, evaluator, strategy)
        config.experiment_working_directory = str(tmp_path)
        return FolderExperiment(space, evaluator, strategy, config, id=identity), strategy

    whole, expected = experiment(tmp_path / "whole", None)
    whole.run()
    stopped, _ = experiment(tmp_path / "stopped", None, Interrupt())
    with pytest.raises((KeyboardInterrupt, SystemExit)):  # NNI and Lightning each have one of their own
        stopped.run()
    stopped.stop()
    resumed, strategy = experiment(tmp_path / "stopped", stopped.id)
    torch.manual_seed(9)  # another process
    resumed.resume()
    for mine, theirs in ((strategy.distribution, expected.distribution), (strategy.supernet, expected.supernet)):
        state = theirs.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in mine.state_dict().items())
    assert strategy.most_likely() == expected.most_likely()
    resumed.stop()
    whole.stop()
    assert "Experiment is completed" in caplog.text
    assert not re.search("training_service|Validation dataloaders|model_path", caplog.text)
