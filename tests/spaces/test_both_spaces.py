"""What holds for both SR spaces: widths, precisions, AdaDM, and how small an input may be."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quantnas_ext.architecture import Architecture
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.nn import AdaDMResidual, ADQResidual
from quantnas_ext.quantization import HWGQActivationQuantizer, LSQActivationQuantizer, QuantConv2d
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space, check_input_side
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.images import write_png
from quantnas_ext.sr.weights.weight_files import save_weights
from recipes import evaluate, search, train, upscale

FEW: dict[str, dict[str, Any]] = {
    "sr_basic": {**dict.fromkeys(("head", "body", "skip", "upsample", "tail"), ["conv_3x3", "conv_1x1"]), "cells": 1},
    "sr_rfdn": {**dict.fromkeys(("body", "distil", "upsample", "tail"), ["conv_3x3", "conv_1x1"]), "cells": 1},
}


def first_architecture(name: str, arguments: dict[str, Any]) -> Architecture:
    """The architecture of every choice's first value."""
    tree = ChoiceTree.of(build_space(name, arguments))
    return Architecture.of(name, arguments, {choice.label: choice.values[0] for choice in tree})


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("width", [12, 36, 60])
def test_the_width_is_the_number_of_channels_that_the_cells_see(name: str, width: int) -> None:
    network = build_space(name, {**FEW[name], "scale": 2, "width": width})
    seen: list[int] = []
    network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    network = network.freeze({choice.label: choice.values[0] for choice in ChoiceTree.of(network)})
    network(torch.rand(1, 3, 16, 15))
    assert seen == [width]


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("bits", [[2, 16], ["w4a8"], ["w8a4", "w2a2"]])
def test_weights_and_activations_have_equal_or_separate_bits(name: str, bits: list[Any]) -> None:
    architecture = first_architecture(name, {**FEW[name], "scale": 2, "width": 12, "bits": bits, "adq": False})
    layers = [m for m in architecture.build().modules() if isinstance(m, QuantConv2d)]
    searched = {(m.precision.weight_bits, m.precision.activation_bits) for m in layers}
    wanted = {2: (2, 2), "w4a8": (4, 8), "w8a4": (8, 4)}[bits[0]]
    assert wanted in searched and searched <= {wanted, (8, 8)}  # the RFDN-like space's fixed layers have 8


@pytest.mark.parametrize("name", FEW)
def test_a_space_of_32_bits_alone_is_searched_in_full_precision(name: str) -> None:
    space = build_space(name, {**FEW[name], "scale": 2, "width": 12, "bits": [32], "adq": False})
    strategy = QuantNAS()
    strategy.mutate_model(space)
    strategy.distribution.draw()
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(space(x), space(x), rtol=0, atol=0)  # no noise, though in training mode
    space(x).mean().backward()
    assert all(logits.grad is not None for label, logits in strategy.distribution.logits.items() if "__" not in label)
    network = space.freeze(strategy.distribution.most_likely())
    layers = [module for module in network.modules() if isinstance(module, QuantConv2d)]
    assert {str(layer.precision) for layer in layers} == {"32"}
    assert not any("log_step" in parameter for parameter, _ in network.named_parameters())


@pytest.mark.parametrize("name", FEW)
def test_adadm_stands_wherever_adq_would_and_is_kept_by_architecture_files(name: str, tmp_path: Path) -> None:
    arguments = {**FEW[name], "scale": 2, "width": 12}
    first_architecture(name, {**arguments, "adq": "adadm"}).save(tmp_path / "architecture.yaml")
    loaded = Architecture.load(tmp_path / "architecture.yaml")
    places = {
        adq: [path for path, module in network.named_modules() if isinstance(module, ADQResidual)]
        for adq, network in (
            ("adadm", loaded.build()),
            (True, first_architecture(name, {**arguments, "adq": True}).build()),
        )
    }
    assert places["adadm"] == places[True] != []
    kinds = {type(module) for module in loaded.build().modules() if isinstance(module, ADQResidual)}
    assert kinds == {AdaDMResidual}
    assert loaded.build()(torch.rand(2, 3, 15, 16)).isfinite().all()


@pytest.mark.parametrize("name", FEW)
def test_hwgq_stands_in_unsigned_layers_only_and_is_kept_by_architecture_files(name: str, tmp_path: Path) -> None:
    operations = dict.fromkeys(FEW[name].keys() - {"cells"}, ["growth1_3x3", "conv_1x1"])
    arguments = {**FEW[name], **operations, "scale": 2, "width": 12, "bits": [4, "w8a32", "w2a8"], "adq": True}
    space = build_space(name, {**arguments, "activation_quantizer": "hwgq"})
    sample = {choice.label: choice.values[0] for choice in ChoiceTree.of(space)}
    Architecture.of(name, {**arguments, "activation_quantizer": "hwgq"}, sample).save(tmp_path / "architecture.yaml")
    built = Architecture.load(tmp_path / "architecture.yaml").build()
    searched = build_space(name, {**arguments, "activation_quantizer": "hwgq"})
    QuantNAS().mutate_model(searched)
    for network in (built, space.freeze(sample), searched.freeze(sample)):
        layers = [module for module in network.modules() if isinstance(module, QuantConv2d)]
        for layer in layers:
            kind = LSQActivationQuantizer if layer.signed else HWGQActivationQuantizer
            assert type(layer.activation_quantizer) is kind
            assert layer.activation_quantizer.bits == layer.precision.activation_bits
        assert {layer.signed for layer in layers} == ({False} if name == "sr_basic" else {False, True})
    x = torch.rand(2, 3, 16, 16)
    for other in (space, searched):
        network = other.freeze(sample)
        network(x)  # starts the learned steps
        built.load_state_dict(network.state_dict(), strict=True)
        torch.testing.assert_close(built.eval()(x), network.eval()(x), rtol=0, atol=0)
    plain = first_architecture(name, arguments).build()
    assert not any(isinstance(module, HWGQActivationQuantizer) for module in plain.modules())


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("quantization", ["direct", "direct_separate"])
def test_a_direct_search_with_hwgq_decided_for_one_architecture_is_that_network(name: str, quantization: str) -> None:
    torch.manual_seed(0)
    arguments = {**FEW[name], "scale": 2, "width": 12, "bits": [4, 8, 32], "adq": False}
    space = build_space(name, {**arguments, "activation_quantizer": "hwgq"})
    strategy = QuantNAS(quantization=quantization)
    strategy.mutate_model(space)
    strategy.distribution.draw()
    x = torch.rand(2, 3, 16, 16)
    space(x).square().mean().backward()
    for label, logits in strategy.distribution.logits.items():
        assert logits.grad is not None and logits.grad.abs().max() > 0, label
        logits.data.normal_()
        logits.data[logits.argmax()] = 1e4
    strategy.distribution.draw()
    network = space.freeze(strategy.most_likely()).eval()
    kinds = {type(layer.activation_quantizer) for layer in network.modules() if isinstance(layer, QuantConv2d)}
    assert HWGQActivationQuantizer in kinds
    torch.testing.assert_close(space.eval()(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("wrong", [{"bits": [4, 5]}, {"bits": ["w4a4", "w4a16"]}, {"last_bits": 6}])
def test_activation_widths_without_a_step_of_hwgq_are_refused_when_the_space_is_built(
    name: str, wrong: dict[str, Any]
) -> None:
    arguments = {**FEW[name], "scale": 2, "width": 12, **wrong}
    build_space(name, arguments)
    with pytest.raises(InputError, match=r"hwgq has no step for activations of \d+ bits; use one of 2, 3, 4, 8 bits"):
        build_space(name, {**arguments, "activation_quantizer": "hwgq"})
    for odd in ("HWQG", ["hwgq"], None):
        with pytest.raises(InputError, match="unknown activation quantizer .* Known: hwgq, lsq"):
            build_space(name, {**FEW[name], "scale": 2, "width": 12, "activation_quantizer": odd})


def test_the_smallest_side_is_what_the_network_takes() -> None:
    for name, arguments in FEW.items():
        network = first_architecture(name, {**arguments, "scale": 3, "width": 12}).build().eval()
        least = {"sr_basic": 1, "sr_rfdn": 15}[name]
        assert network(torch.rand(1, 3, least, least + 1)).shape == (1, 3, 3 * least, 3 * least + 3)
        check_input_side(network, least, "it")
        with pytest.raises(InputError, match=f"patch of 0 pixels is too small .* at least {least} pixels a side"):
            check_input_side(network, 0, "a patch of 0 pixels")


def test_spaces_without_a_smallest_side_take_any_input() -> None:
    check_input_side(torch.nn.Identity(), 1, "an input of 1 pixel")


def test_patches_and_images_too_small_for_esa_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {**FEW["sr_rfdn"], "scale": 2, "width": 12}
    architecture = first_architecture("sr_rfdn", arguments)
    architecture.save("architecture.yaml")
    save_weights(architecture.build().state_dict(), "weights.safetensors")
    Path("small").mkdir()
    Path("large").mkdir()
    for folder, height, width in (("small", 28, 60), ("large", 60, 60)):
        for index in range(2):
            write_png(Path(folder, f"{index}.png"), torch.randint(256, (height, width, 3), dtype=torch.uint8).numpy())
    prepare_dataset_folder("large", "data", 2)
    Path("tiny").mkdir()
    write_png(Path("tiny", "tiny.png"), torch.zeros(14, 20, 3, dtype=torch.uint8).numpy())
    space = {"name": "sr_rfdn", "arguments": arguments}
    config = {"run": "runs/new", "space": space, "data": {"train": ["data"], "patch": 14}, "train": {"patch": 14}}
    Path("config.yaml").write_text(json.dumps(config))
    network = ["--architecture", "architecture.yaml"]
    weights = [*network, "--weights", "weights.safetensors"]
    before = sorted(tmp_path.rglob("*"))
    tests = ["--config", "config.yaml", "--set", "train.patch=15", "--set", "data.test={own: small}"]
    for recipe, words, message in (
        (search, ["--config", "config.yaml"], r"^data.patch of 14 pixels is too small .* 15 pixels"),
        (train, ["--config", "config.yaml", *network], r"^train.patch of 14 pixels is too small .* 15 pixels"),
        (train, [*tests, *network], r"0.png' of 60x28 pixels is too small to be scored at scale 2; .* 31 pixels"),
        (evaluate, [*weights, "--data", "own=small", "--out", "scores.json"], "60x28 pixels is too small .* 31 pixels"),
        (upscale, ["large", "tiny", *weights, "--out", "new"], r"image 'tiny/tiny.png' of 20x14 pixels is too small"),
    ):
        with pytest.raises(InputError, match=message):
            recipe.main(words)
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": []}, r"bits \[\] of the space should be a list of precisions, such as \[4, 8\]"),
        ({"body": []}, "has no candidate operations"),
        ({"tail": ["decrease_3x3"]}, "3 channels cannot be halved"),
        ({"tail": ["conv_3x3_g2"]}, "from 3 to 3 channels cannot have 2 groups"),
        ({"body": ["decenc_3x3_8"]}, "12 channels cannot be divided by 8"),
        ({"adq": "ADQ"}, "adq 'ADQ' .* true or false, or adadm"),
        ({"adq": 1}, "adq 1 .* true or false"),
    ],
)
def test_what_cannot_be_built_is_refused_by_a_search_before_its_data_is_read(
    name: str, arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    space = {"name": name, "arguments": {"scale": 2, "width": 12, **FEW[name], **arguments}}
    (tmp_path / "config.yaml").write_text(json.dumps({"space": space, "data": {"train": ["absent"]}}))
    with pytest.raises(InputError, match=message):
        search.main(["--config", str(tmp_path / "config.yaml"), "--set", f"run={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()
