"""A quantizer of one's own is one class: it is searched, derived, trained, saved, tiled and counted like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from small_searches import tiny_data
from torch import Tensor, nn

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.cost import ParameterBytes
from quantnas_ext.deriving.calibration import calibrate
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import (
    ActivationQuantizer,
    QuantConv2d,
    Quantizer,
    WeightQuantizer,
    activation_quantizers,
    agree_on_steps,
    quantized_layers,
    register_quantizer,
    step_parameters,
)
from quantnas_ext.runs.config import load_config
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.best_epoch import measuring
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space
from quantnas_ext.sr.data.images import image_to_tensor, tensor_to_image
from quantnas_ext.sr.evaluation.tiling import tile_margin, upscale_tiles
from quantnas_ext.sr.training.arch import trained_network
from quantnas_ext.sr.training.basicsr_options import (
    final_training_options,
    parse_arguments,
    read_options,
    write_options,
)
from quantnas_ext.sr.training.model import QuantNASModel
from quantnas_ext.sr.weights.weight_files import save_weights
from quantnas_ext.sr.weights.weight_identity import WeightIdentity
from quantnas_ext.sr.weights.weight_loading import load_weights


@register_quantizer("pact")
class PACT(ActivationQuantizer):
    """Inputs behind a ReLU, clipped at a learned value (Choi et al., "PACT", 2018)."""

    takes_signed = False

    def __init__(self, bits: int, *, signed: bool = False) -> None:
        super().__init__(bits, signed=signed)
        self.clip = nn.Parameter(torch.tensor(0.5))

    def step_for(self, x: Tensor) -> Tensor:
        return self.clip / (2**self.bits - 1)

    def forward(self, x: Tensor) -> Tensor:
        clipped = torch.minimum(x.clamp_min(0), self.clip)
        step = self.step_for(x)
        return clipped + ((clipped / step).round() * step - clipped).detach()


@register_quantizer("running_range")
class RunningRange(ActivationQuantizer):
    """A step for the largest value in the first batches, of all processes."""

    started: Tensor
    top: Tensor

    def __init__(self, bits: int, *, signed: bool) -> None:
        super().__init__(bits, signed=signed)
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("top", torch.zeros(()))
        self.observing = True

    def reset(self) -> None:
        self.started.fill_(False)
        self.top.zero_()
        self.batches, self.agreed, self.observing = 0, 0, True

    def observe(self, x: Tensor) -> None:
        self.top.copy_(torch.maximum(self.top, x.detach().abs().amax()))
        self.started.fill_(True)
        self.batches += 1
        self.observing = self.batches < 8

    def observed(self) -> tuple[Tensor, Tensor]:
        return self.top[None], self.top

    def take_over(self, mean: Tensor, largest: Tensor, batches: int) -> None:
        self.top.copy_(largest)
        self.started.fill_(True)
        self.batches = self.agreed = batches

    def step_for(self, x: Tensor) -> Tensor:
        top = self.top.clone() if self.ready else x.detach().abs().amax()
        return top.clamp_min(1e-6) / (2 ** (self.bits - self.signed) - 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.observing:
            self.observe(x)
        step = self.step_for(x)
        most = 2 ** (self.bits - self.signed) - 1
        clipped = torch.minimum(torch.maximum(x, -most * step * self.signed), most * step)
        return clipped + ((clipped / step).round() * step - clipped).detach()


@register_quantizer("full_range")
class FullRange(WeightQuantizer):
    """One step for the whole weight, for its largest value: nothing is learned or stored."""

    granularity = "tensor"
    learned = False

    def step_for(self, x: Tensor) -> Tensor:
        return x.detach().abs().amax().clamp_min(1e-6) / (2 ** (self.bits - 1) - 1)

    def forward(self, weight: Tensor) -> Tensor:
        step = self.step_for(weight)
        return weight + ((weight / step).round() * step - weight).detach()


OPERATIONS = {"head": ["conv_3x3"], "body": ["fac_3x3", "conv_3x3"], "skip": ["conv_1x1"], "upsample": ["conv_3x3"]}
ARGUMENTS = {"scale": 2, "width": 6, "cells": 1, "adq": False, "bits": [4, 8], "tail": ["conv_1x1"], **OPERATIONS}
KINDS = [{"activation_quantizer": "pact"}, {"activation_quantizer": "running_range", "weight_quantizer": "full_range"}]


@pytest.mark.parametrize("kinds", KINDS, ids=["learned", "observed"])
@pytest.mark.parametrize("quantization", ["noise", "direct"])
def test_it_goes_from_the_search_to_the_trained_and_tiled_network(
    kinds: dict[str, str], quantization: Any, tmp_path: Path
) -> None:
    arguments = {**ARGUMENTS, **kinds}
    torch.manual_seed(0)
    space, strategy = build_space("sr_basic", arguments), QuantNAS(quantization=quantization)
    evaluator = AccelerateEvaluator(
        tiny_data(), tiny_data(), epochs=2, steps_per_epoch=3, batch_size=2, weight_learning_rate=1e-2
    )
    sample = run_experiment(space, evaluator, strategy, tmp_path / "nni")
    derived = strategy.supernet.freeze(sample)
    classes = {type(q).__name__ for q in derived.modules() if isinstance(q, Quantizer)}
    own = {"pact": "PACT", "running_range": "RunningRange"}[kinds["activation_quantizer"]]
    assert classes == {own, "FullRange" if "weight_quantizer" in kinds else "LSQWeightQuantizer"}
    if quantization == "direct":  # it has learned or seen something in the search, which goes with the network
        first = next(activation_quantizers(derived))
        assert first.clip != 0.5 if isinstance(first, PACT) else first.ready
    calibrate(derived, [[image] for image in tiny_data().tensors[0].split(4)])
    assert all(quantizer.ready for quantizer in activation_quantizers(derived))

    architecture = Architecture.of("sr_basic", arguments, sample)
    architecture.save(tmp_path / "architecture.yaml")
    weights = sum(
        layer.weight.numel() * layer.precision.weight_bits / 8
        + 4
        + (0 if "weight_quantizer" in kinds else 4 * len(layer.weight))
        for layer in quantized_layers(derived)
    )
    assert ParameterBytes().of_network(derived) == architecture.cost["bytes"] == weights
    identity = WeightIdentity.of(architecture, "derived")
    save_weights(derived.state_dict(), tmp_path / "derived.safetensors", identity)
    loaded, lines = trained_network(str(tmp_path / "architecture.yaml"), str(tmp_path / "derived.safetensors"))
    x = torch.rand(1, 3, 20, 24)
    assert not lines and torch.equal(loaded(x), derived.eval()(x))
    save_weights(derived.state_dict(), tmp_path / "nameless.safetensors")
    assert "do not say which network" in load_weights(loaded, tmp_path / "nameless.safetensors", architecture)[0]
    lsq = Architecture.of("sr_basic", ARGUMENTS, sample)
    other, path = lsq.build(), tmp_path / "derived.safetensors"
    with pytest.raises(InputError, match="in the file and . bits in the architecture"):
        load_weights(other, path, lsq)
    assert "quantization steps start anew" in load_weights(other, path, lsq, other_precisions="any")[0]
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(*map(quantized_layers, (other, derived)), strict=True))

    image = data.coffee()[100:211, 200:331]
    margin = tile_margin(loaded)
    assert margin is not None
    with torch.no_grad():
        whole = tensor_to_image(loaded(image_to_tensor(image)))
    assert np.array_equal(upscale_tiles(loaded, image, 48, margin), whole)
    if quantization == "noise":
        trained_with_basicsr(tmp_path, kinds)


def trained_with_basicsr(folder: Path, kinds: dict[str, str]) -> None:
    from basicsr.models import build_model

    values = ["data.train=[x]", "data.test={own: x}", "train.iterations=4", "train.full_precision_iterations=1"]
    options_file = folder / "options.yml"
    start = folder / "derived.safetensors"
    write_options(
        final_training_options(load_config(None, values), 2, 10, folder / "architecture.yaml", start), options_file
    )
    options = read_options(parse_arguments(["-opt", str(options_file)]), str(folder))
    options["logger"]["progress_bar"] = False
    for name in ("models", "training_states"):
        Path(options["path"][name]).mkdir(parents=True)
    model: QuantNASModel = build_model(options)
    steps = {id(parameter) for parameter in step_parameters(model.net_g)}
    assert {id(p) for p in model.optimizer_g.param_groups[-1]["params"]} == steps or not steps
    if kinds["activation_quantizer"] == "pact":
        assert all(id(quantizer.clip) in steps for quantizer in activation_quantizers(model.net_g))
    for iteration in range(1, 5):
        model.update_learning_rate(iteration)
        low = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(iteration))
        model.feed_data({"lq": low, "gt": low.repeat_interleave(2, 2).repeat_interleave(2, 3)})
        model.optimize_parameters(iteration)
    model.save(0, 4)
    saved = Path(options["path"]["models"], "net_g_4.pth")
    network, lines = trained_network(str(folder / "architecture.yaml"), str(saved))
    assert not lines and network.state_dict().keys() == model.net_g.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in model.net_g.state_dict().items())


def test_the_bias_lies_on_the_grid_of_its_steps_and_a_look_leaves_no_trace() -> None:
    torch.manual_seed(0)
    layer = QuantConv2d(3, 4, 1, bits="w4a8", activation_quantizer="running_range", weight_quantizer="full_range")
    network = nn.Sequential(layer).eval()
    x = torch.randn(2, 3, 5, 5)
    network(x)
    (quantizer,) = activation_quantizers(network)
    assert not quantizer.ready and quantizer.disagreeing and tile_margin(network) is None

    class Settled:
        def settle(self) -> None:
            pass

    with measuring(network, Settled()):  # type: ignore[arg-type]
        network(x)
    assert not quantizer.ready
    network.train()(x)
    assert quantizer.ready and agree_on_steps(network) and quantizer.agreed == 1
    _, weight, bias = layer.operands(x)
    grid = layer.weight.abs().max() / 7 * x.abs().max() / 127
    torch.testing.assert_close(bias, (layer.bias / grid).round() * grid)
    assert len((weight / layer.weight.abs().max() * 7).round().unique()) > 3
    for _ in range(7):
        network(x)
    assert agree_on_steps(network) and not agree_on_steps(network)
    layer.reset_steps()
    assert not quantizer.ready


def test_names_and_classes_that_cannot_be_registered_are_refused() -> None:
    with pytest.raises(InputError, match="activation quantizer 'pact' exists already"):
        register_quantizer("pact")(RunningRange)
    assert RunningRange.kind == "running_range"
    with pytest.raises(InputError, match="'a.b' cannot name a weight quantizer; use letters"):
        register_quantizer("a.b")(FullRange)
    with pytest.raises(InputError, match="derive it from WeightQuantizer or ActivationQuantizer"):
        register_quantizer("other")(nn.Identity)  # type: ignore[type-var]
    with pytest.raises(InputError, match="unknown weight quantizer 'full_rang'; did you mean 'full_range'"):
        build_space("sr_basic", {**ARGUMENTS, "weight_quantizer": "full_rang"})
    with pytest.raises(InputError, match="activation quantizer pact is for inputs that are never negative"):
        QuantConv2d(3, 3, 1, activation_quantizer="pact")
