from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from basicsr.models import build_model

from quantnas_ext.architecture import Architecture
from quantnas_ext.quantization import initial_step, quantized_layers
from quantnas_ext.runs.config import load_config
from quantnas_ext.sr.training import arch  # noqa: F401 (enters the network in the registry of BasicSR)
from quantnas_ext.sr.training import model as model_module
from quantnas_ext.sr.training.basicsr_options import (
    final_training_options,
    parse_arguments,
    read_options,
    write_options,
)
from quantnas_ext.sr.training.model import QuantNASModel

FULL_PRECISION_ITER = 2


@pytest.fixture
def build(dataset_folder: Path, architecture: Architecture, tmp_path: Path) -> Callable[..., QuantNASModel]:
    """The model of a training of five iterations, the first two in full precision; with batch norm (ADQ)."""
    arguments = {**architecture.arguments, "adq": True}
    Architecture.of(architecture.space, arguments, architecture.choices).save(tmp_path / "architecture.yaml")
    config = load_config(
        None,
        [
            f"data.train=[{dataset_folder}]",
            "train.iterations=5",
            f"train.full_precision_iterations={FULL_PRECISION_ITER}",
            "train.learning_rate=0.01",
        ],
    )
    write_options(final_training_options(config, 2, 10, tmp_path / "architecture.yaml", None), tmp_path / "options.yml")

    def build(**train: Any) -> QuantNASModel:
        options = read_options(parse_arguments(["-opt", str(tmp_path / "options.yml")]), str(tmp_path))
        options["logger"]["progress_bar"] = False
        options["train"].update(train)
        for folder in ("models", "training_states"):
            Path(options["path"][folder]).mkdir(parents=True, exist_ok=True)
        return build_model(options)

    return build


def step(model: QuantNASModel, iteration: int) -> None:
    model.update_learning_rate(iteration)
    lr = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(iteration))
    model.feed_data({"lq": lr, "gt": lr.repeat_interleave(2, 2).repeat_interleave(2, 3)})
    model.optimize_parameters(iteration)


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What weight steps restarted from: one entry for each restart."""
    found: list[torch.Tensor] = []
    original = model_module.reset_steps

    def reset_steps(network: torch.nn.Module) -> None:
        original(network)
        layer = next(quantized_layers(network))
        found.append(layer.weight.detach().clone())
        assert torch.allclose(
            layer.weight_quantizer.step, initial_step(layer.weight, 8, signed=True, per_channel=True), rtol=1e-4
        )

    monkeypatch.setattr(model_module, "reset_steps", reset_steps)
    return found


def started(model: QuantNASModel) -> set[bool]:
    return {bool(layer.activation_quantizer.started) for layer in quantized_layers(model.net_g)}


def test_quantization_starts_once_after_the_full_precision_iterations(
    build: Callable[..., QuantNASModel], restarts: list[torch.Tensor]
) -> None:
    model = build()
    for iteration in range(1, 6):
        step(model, iteration)
        quantized = iteration > FULL_PRECISION_ITER
        assert {layer.quantized for layer in quantized_layers(model.net_g)} == {quantized}
        assert started(model) == {quantized}
        assert len(restarts) == int(quantized)


@pytest.mark.parametrize(("iteration", "expected"), [(1, 1), (2, 1), (3, 0), (4, 0)])
def test_a_resumed_training_goes_on_in_the_right_phase(
    build: Callable[..., QuantNASModel], restarts: list[torch.Tensor], iteration: int, expected: int
) -> None:
    model = build()
    for number in range(1, 6):
        step(model, number)
        if number == iteration:
            model.save(0, iteration)
    restarts.clear()

    resumed = build()
    paths = resumed.opt["path"]
    resumed.load_network(resumed.net_g, f"{paths['models']}/net_g_{iteration}.pth")
    resumed.resume_training(torch.load(f"{paths['training_states']}/{iteration}.state", weights_only=True))
    assert {layer.quantized for layer in quantized_layers(resumed.net_g)} == {iteration > FULL_PRECISION_ITER}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the schedule, which moves before the optimizer's first step here
        for number in range(iteration + 1, 6):
            step(resumed, number)
    assert len(restarts) == expected
    # The batches are the same, so the resumed training ends in the same weights.
    for key, value in model.net_g.state_dict().items():
        assert torch.equal(value, resumed.net_g.state_dict()[key]), key


def test_the_moving_average_has_the_quantizers_and_buffers_of_the_network(
    build: Callable[..., QuantNASModel],
) -> None:
    model = build(ema_decay=0.5)
    for iteration in range(1, 5):
        step(model, iteration)
    network, average = model.net_g.state_dict(), model.net_g_ema.state_dict()
    assert {layer.quantized for layer in quantized_layers(model.net_g_ema)} == {True}
    for key, value in network.items():
        if key.endswith(("started", "seen", "histogram", "largest", "running_mean", "running_var", "batches_tracked")):
            assert torch.equal(average[key], value) and value.any()
        elif key.endswith("activation_quantizer.log_step"):
            assert torch.equal(average[key], value)  # while the step is observed; an average would lag behind
        else:
            assert not torch.equal(average[key], value)


def test_each_iteration_is_validated_once_under_its_own_number(
    build: Callable[..., QuantNASModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(
        model_module.SRModel,
        "nondist_validation",
        lambda self, loader, iteration, *_: calls.append((loader.dataset.opt["name"], iteration)),
    )

    class Loader:
        def __init__(self, name: str) -> None:
            self.dataset = type("Dataset", (), {"opt": {"name": name}})

    model = build()
    for iteration, name in ((2, "a"), (2, "b"), (5, "a"), (6, "a"), (6, "b")):
        model.validation(Loader(name), iteration, None)
    assert calls == [("a", 2), ("b", 2), ("a", 5), ("b", 5)]
