"""One search step against the same step written out by hand; clipping, schedules and phases."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.evaluator.pytorch.lightning import DataLoader, Lightning, LightningModule, Trainer
from nni.nas.nn.pytorch import ModelSpace
from small_searches import batch, prepared
from torch import nn
from torch.utils.data import TensorDataset

from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Penalty
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import QuantConv2d, give_steps_a_group
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.phases import frozen
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.supernet.layer_input import LayerInput
from quantnas_ext.supernet.mixed_layers import MixedQuantConv2d

COST = BitOps((1, 2, 4, 4))


def test_one_step_is_an_adam_step_of_the_logits_and_then_a_clipped_one_of_the_weights(tmp_path: Path) -> None:
    space, strategy = prepared(costs=[Penalty(COST, 0.5)], entropy=0.2, quantization="none", gradient_clip=0.01)
    reference = copy.deepcopy(space)
    by_hand = QuantNAS(costs=[Penalty(COST, 0.5)], entropy=0.2, quantization="none")
    torch.manual_seed(1)
    by_hand.mutate_model(reference)
    evaluator = AccelerateEvaluator(
        TensorDataset(*batch(0)),
        TensorDataset(*batch(1)),
        epochs=1,
        batch_size=4,
        weight_learning_rate=0.03,
        weight_decay=0,
    )
    torch.manual_seed(1)
    run_experiment(space, evaluator, strategy, tmp_path)

    logits, inputs, targets = list(by_hand.distribution.parameters()), *batch(1)
    adam = torch.optim.Adam(logits, 0.1, betas=(0.5, 0.999))
    draw = by_hand.distribution.draw()
    weights = list(reference.parameters())
    with frozen(weights):  # steps do not start here
        loss = nn.functional.l1_loss(reference(inputs), targets)
    cost = by_hand.objective.costs[0](draw) / by_hand.objective.references[0]
    (loss + 0.5 * cost + 0.2 * by_hand.distribution.entropy(draw)).backward()
    adam.step()
    reference.zero_grad()
    with torch.no_grad():
        by_hand.distribution.draw()
    inputs, targets = batch(0)
    nn.functional.l1_loss(reference(inputs), targets).backward()
    norm = nn.utils.clip_grad_norm_(weights, 0.01)
    assert norm > 0.01
    adam = torch.optim.Adam(weights, 0.03)
    give_steps_a_group(adam, reference)
    adam.step()
    for found, expected in ((strategy.distribution, by_hand.distribution), (strategy.supernet, reference)):
        state = expected.state_dict()
        for name, tensor in found.state_dict().items():
            torch.testing.assert_close(tensor, state[name], rtol=1e-4, atol=1e-6)


def test_both_phases_see_noise_and_the_learning_rate_falls_along_a_cosine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, strategy = prepared()
    seen: list[bool] = []
    compute = MixedQuantConv2d.compute

    def watched(layer: MixedQuantConv2d, source: LayerInput, *arguments: Any) -> torch.Tensor:
        result = compute(layer, source, *arguments)
        seen.append(not torch.allclose(result, layer._conv_forward(source.plain, layer.weight, layer.bias)))
        return result

    rates: list[float] = []
    step = torch.optim.Adam.step

    def stepped(optimizer: torch.optim.Adam, *arguments: Any, **keywords: Any) -> Any:
        if optimizer.defaults["betas"] == (0.9, 0.999):
            rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments, **keywords)

    monkeypatch.setattr(MixedQuantConv2d, "compute", watched)
    monkeypatch.setattr(torch.optim.Adam, "step", stepped)
    data = TensorDataset(*batch(0))
    run_experiment(space, AccelerateEvaluator(data, data, epochs=2, batch_size=2), strategy, tmp_path)
    assert len(seen) == 2 * 2 * 2 * 2 and all(seen)
    cosine = [1e-3 * (1 + torch.cos(torch.tensor(torch.pi * step / 4)).item()) / 2 for step in range(4)]
    assert rates == pytest.approx(cosine)


class Regression(LightningModule):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.l1_loss(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


def schedule(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Record where on the entropy's schedule a search asks for its weight."""
    asked: list[tuple[float, int]] = []
    forward = SearchObjective.forward

    def watched(objective: Any, loss: Any, draw: Any, t: float, epochs: int) -> Any:
        asked.append((t, epochs))
        return forward(objective, loss, draw, t, epochs)

    monkeypatch.setattr(SearchObjective, "forward", watched)
    return asked


def lightning(strategy: QuantNAS, space: ModelSpace, **trainer: Any) -> None:
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.space import RawFormatModelSpace

    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    loaders = [DataLoader(TensorDataset(*batch(seed)), batch_size=2) for seed in range(2)]
    evaluator = Lightning(
        Regression(),
        Trainer(accelerator="cpu", enable_progress_bar=False, **quiet, **trainer),
        train_dataloaders=loaders[0],
        val_dataloaders=loaders[1],
    )
    strategy(RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine())


@pytest.mark.filterwarnings("ignore")
def test_both_evaluators_follow_the_schedule_with_fractions_of_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = schedule(monkeypatch)
    expected = [(0.0, 2), (0.5, 2), (1.0, 2), (1.5, 2)]
    space, strategy = prepared(warmup_epochs=1)
    data = TensorDataset(*batch(0))
    run_experiment(space, AccelerateEvaluator(data, data, epochs=3, batch_size=2), strategy, tmp_path)
    assert asked == expected
    asked.clear()
    space, strategy = prepared(warmup_epochs=1)
    lightning(strategy, space, max_epochs=3)
    assert asked == expected


@pytest.mark.filterwarnings("ignore")
def test_a_lightning_trainer_without_room_for_the_search_is_refused() -> None:
    for trainer in ({"max_epochs": 2}, {"max_steps": 32}):
        space, strategy = prepared(warmup_epochs=5)
        with pytest.raises(InputError, match="leaves no epoch"):
            lightning(strategy, space, **trainer)


def test_layers_of_fixed_precision_keep_their_trained_weights_and_steps(tmp_path: Path) -> None:
    space, strategy = prepared()
    data = TensorDataset(*batch(0))
    run_experiment(space, AccelerateEvaluator(data, data, epochs=1, batch_size=2), strategy, tmp_path)
    network = strategy.derive()
    assert type(network.fixed) is QuantConv2d
    for name, tensor in strategy.supernet.fixed.state_dict().items():
        assert torch.equal(network.fixed.state_dict()[name], tensor)
    assert network.fixed.activation_quantizer.started


def test_a_process_can_search_several_times_in_other_precisions_but_a_space_only_once(tmp_path: Path) -> None:
    data = TensorDataset(*batch(0))
    records: list[EpochRecord] = []
    for precision in ("no", "bf16"):
        space, strategy = prepared()
        evaluator = AccelerateEvaluator(
            data, data, epochs=1, batch_size=2, mixed_precision=precision, on_epoch=records.append
        )
        run_experiment(space, evaluator, strategy, tmp_path)
    assert len(records) == 4
    with pytest.raises(InputError, match="a supernet already"):
        QuantNAS().mutate_model(space)


def test_a_checkpoint_of_another_noise_or_width_is_refused(tmp_path: Path) -> None:
    data = TensorDataset(*batch(0))

    def search(**changes: Any) -> None:
        space, strategy = prepared(**changes)
        evaluator = AccelerateEvaluator(data, data, epochs=1, batch_size=2, checkpoint=tmp_path / "search.ckpt")
        run_experiment(space, evaluator, strategy, tmp_path)

    search()
    for change in ({"noise": "gaussian"}, {"gradient_clip": 1.0}, {"costs": [Penalty(COST, 1.0)]}):
        with pytest.raises(InputError, match="other settings"):
            search(**change)
