"""Weights that are not this network's, and files of weights as they lie about; each test is named by the habit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from skimage import data

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import initial_step, quantized_layers, without_observation
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.images import write_png
from quantnas_ext.sr.training.arch import QuantNASNetwork, trained_network
from quantnas_ext.sr.weights.weight_files import IDENTITY_KEY, read_weight_file, save_weights
from quantnas_ext.sr.weights.weight_identity import WeightIdentity
from recipes import evaluate, train, upscale

BLOCKS = ("head_0", "head_1", "body_0", "body_1", "body_skip", "upsample_0", "tail_0", "tail_1")
KINDS = ("head", "body", "skip", "upsample", "tail")


def basic(bits: Any = 8, operation: str = "conv_3x3", **arguments: Any) -> Architecture:
    """A network of 3x3 kernels; `bits` for all blocks, or by block."""
    by_block = bits if isinstance(bits, dict) else dict.fromkeys(BLOCKS, bits)
    offered = dict.fromkeys(KINDS, ["conv_3x3", "conv_3x3_d2"])
    common = {"scale": 2, "width": 6, "cells": 1, "adq": False, "bits": sorted(set(by_block.values())), **offered}
    choices = dict.fromkeys(BLOCKS, operation)
    precisions = {f"{block}__{operation}__bits": value for block, value in by_block.items()}
    return Architecture.of("sr_basic", common | arguments, choices | precisions)


def save(architecture: Architecture, folder: Path, *, identity: bool = True, seed: int = 0) -> tuple[str, str]:
    """Architecture and weights that have seen a batch; returns both files."""
    folder.mkdir(exist_ok=True)
    architecture.save(folder / "architecture.yaml")
    torch.manual_seed(seed)
    network = architecture.build()
    network(torch.rand(2, 3, 16, 16))
    whose = WeightIdentity.of(architecture, "supernet's, calibrated") if identity else None
    save_weights(network.state_dict(), folder / "weights.safetensors", whose)
    return str(folder / "architecture.yaml"), str(folder / "weights.safetensors")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_png(folder / "coffee.png", data.coffee()[100:164, 200:270])
    return folder


@pytest.fixture(scope="module")
def dataset(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_dataset_folder(images, tmp_path_factory.mktemp("data") / "set", 2)


def trained(architecture: str, weights: str | None, dataset: Path, run: Path, *words: str) -> Path:
    """Train for eight iterations, the first four in full precision, with a checkpoint every two."""
    values = [
        f"data.train=[{dataset}]",
        "train.iterations=8",
        "train.full_precision_iterations=4",
        "train.batch_size=2",
        "train.patch=12",
        "train.checkpoint_every=2",
        *words,
    ]
    start = [] if weights is None else ["--weights", weights]
    sets = [word for value in values for word in ("--set", value)]
    train.main(["--architecture", architecture, *start, "--run", str(run), *sets])
    return run


SAME_TENSORS = {
    "other_bits": (basic(8), basic(4), r"layer head.0.1: 8 bits in the file and 4 bits in the architecture"),
    "bits_of_activations_alone": (basic("w4a8"), basic(4), r"w4a8 bits in the file and 4 bits"),
    "one_block_of_eight": (basic(8), basic({**dict.fromkeys(BLOCKS, 8), "tail_1": 4}), r"layer tail.*8 bits in the"),
    "dilation": (basic(8), basic(8, "conv_3x3_d2"), r"block body_0: conv_3x3 in the file and conv_3x3_d2 in the"),
    "adq_or_adadm": (basic(8, adq=True), basic(8, adq="adadm"), r"adq: True in the file and adadm in the architec"),
}


@pytest.mark.parametrize("case", SAME_TENSORS)
def test_weights_of_a_network_with_the_same_tensors_are_refused(case: str, images: Path, tmp_path: Path) -> None:
    theirs, own, reason = SAME_TENSORS[case]
    _, weights = save(theirs, tmp_path / "theirs")
    architecture, mine = save(own, tmp_path / "own")
    assert read_weight_file(weights).weights.keys() == read_weight_file(mine).weights.keys()
    network = ["--architecture", architecture, "--weights", weights]
    for recipe, words in ((evaluate, ["--data", f"a={images}"]), (upscale, [str(images), "--out", "unmade"])):
        with pytest.raises(InputError, match=reason):
            recipe.main([*network, *words])
    with pytest.raises(InputError, match=reason):
        QuantNASNetwork(architecture, weights=weights)
    trained_network(architecture, mine)


def test_what_there_was_to_choose_is_no_part_of_a_network(tmp_path: Path) -> None:
    _, weights = save(basic(8), tmp_path / "theirs")
    arguments = {**basic(8).arguments, "bits": [2, 8], "tail": ["conv_1x1", "conv_3x3"]}
    wide = Architecture.of("sr_basic", arguments, basic(8).choices)
    wide.save(tmp_path / "wide.yaml")
    _, lines = trained_network(str(tmp_path / "wide.yaml"), weights)
    assert lines == []
    assert WeightIdentity.of(wide).digest == WeightIdentity.of(basic(8).with_precision(8)).digest


def test_training_from_weights_at_other_bits_starts_their_steps_anew_and_says_so(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, weights = save(basic(8), tmp_path / "search")
    # The second most probable architecture has the same operations; its weights are the found network's.
    basic(4).save(tmp_path / "search" / "architecture_2.yaml")
    second = str(tmp_path / "search" / "architecture_2.yaml")
    run = trained(second, None, dataset, tmp_path / "run", "train.from_supernet=true", "train.iterations=5")
    said = capsys.readouterr().out
    assert "(supernet's, calibrated) belong to other precisions (layer head.0.1: 8 bits in the file and 4 bits" in said
    assert said.count("quantization steps start anew") == 1
    start = read_weight_file(run / "initial.safetensors")
    found = read_weight_file(weights).weights
    for key, value in start.weights.items():
        if key.endswith("weight_quantizer.log_step"):
            weight = found[key.replace("weight_quantizer.log_step", "weight")]
            assert torch.allclose(value.exp(), initial_step(weight, 4, signed=True, per_channel=True))
        elif not key.endswith(("log_step", "started")):
            assert torch.equal(value, found[key])
    assert not any(value for key, value in start.weights.items() if key.endswith("started"))
    result = read_weight_file(run / "network.safetensors")
    assert result.identity is not None and result.identity.state == "trained, 5 iterations"
    with pytest.raises(InputError, match="4 bits in the file and 8 bits in the architecture"):
        trained_network(str(tmp_path / "search" / "architecture.yaml"), str(run / "network.safetensors"))


def test_other_operations_are_no_start_for_a_training(dataset: Path, tmp_path: Path) -> None:
    _, weights = save(basic(8), tmp_path / "search")
    basic(8, "conv_3x3_d2").save(tmp_path / "other.yaml")
    with pytest.raises(InputError, match=r"another network: block body_0: conv_3x3 in the file and conv_3x3_d2"):
        trained(str(tmp_path / "other.yaml"), weights, dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("theirs", "own"), [(8, 4), (4, 8), (6, 4)])
def test_old_files_without_an_identity_are_told_by_their_steps(theirs: int, own: int, tmp_path: Path) -> None:
    _, weights = save(basic(theirs), tmp_path / "theirs", identity=False)
    architecture, mine = save(basic(own), tmp_path / "own", identity=False)
    with pytest.raises(InputError, match=rf"layer head.0.1: {theirs} bits in the file and {own} bits"):
        trained_network(architecture, weights)
    network, lines = trained_network(architecture, mine)
    assert len(lines) == 1 and "do not say which network they belong to" in lines[0]
    kept = without_observation(network.state_dict())
    assert all(torch.equal(value, read_weight_file(mine).weights[key]) for key, value in kept.items())
    # Training moves steps and weights apart; a factor of two is no other number of bits.
    drifted = {
        key: v + 0.69 if key.endswith("weight_quantizer.log_step") else v
        for key, v in read_weight_file(mine).weights.items()
    }
    save_weights(drifted, mine)
    trained_network(architecture, mine)


def test_full_precision_weights_are_not_scored_as_quantized_ones(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    architecture, quantized = save(basic(8), tmp_path / "quantized")
    in_full, weights = save(basic(8).with_precision(32), tmp_path / "full")
    for given, file in ((architecture, weights), (in_full, quantized)):
        with pytest.raises(InputError, match=r"(full precision|8 bits) in the file and (full precision|8 bits) in the"):
            evaluate.main(["--architecture", given, "--weights", file, "--data", f"a={images}"])
    evaluate.main(["--architecture", in_full, "--weights", weights, "--data", f"a={images}"])
    assert "network: bitops_32" in capsys.readouterr().out


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    basic(8).save(folder / "architecture.yaml")
    return trained(str(folder / "architecture.yaml"), None, dataset, folder / "run")


def test_checkpoints_of_basicsr_are_taken_where_safetensors_are(run: Path, images: Path, tmp_path: Path) -> None:
    models = run / "experiments" / "train" / "models"
    architecture = ["--architecture", str(run / "architecture.yaml")]
    for name, weights in (("a", run / "network.safetensors"), ("b", models / "net_g_8.pth")):
        upscale.main([*architecture, "--weights", str(weights), str(images), "--out", str(tmp_path / name)])
    assert (tmp_path / "a" / "coffee.png").read_bytes() == (tmp_path / "b" / "coffee.png").read_bytes()
    at_two = tmp_path / "four.yaml"
    basic(4).save(at_two)
    with pytest.raises(InputError, match=r"\(trained, 8 iterations\) .*8 bits in the file and 4 bits"):
        trained_network(str(at_two), str(models / "net_g_latest.pth"))
    with pytest.raises(InputError, match=r"net_g_4.pth' \(trained, 4 of 4 iterations in full precision, .* full prec"):
        trained_network(str(run / "architecture.yaml"), str(models / "net_g_4.pth"))


def test_a_moving_average_is_preferred(tmp_path: Path) -> None:
    architecture, weights = save(basic(8), tmp_path / "own")
    state = read_weight_file(weights).weights
    average = {f"module.{key}": value.clone() for key, value in state.items()}
    average["module.head.0.1.weight"] *= 1.5
    torch.save({"params": state, "params_ema": average}, tmp_path / "net_g_1.pth")
    network, _ = trained_network(architecture, str(tmp_path / "net_g_1.pth"))
    assert torch.equal(network.head[0][1].weight, state["head.0.1.weight"] * 1.5)
    torch.save(state, tmp_path / "plain.pth")
    network, lines = trained_network(architecture, str(tmp_path / "plain.pth"))
    assert torch.equal(network.head[0][1].weight, state["head.0.1.weight"]) and len(lines) == 1


def test_checkpoints_of_an_earlier_version_belong_to_the_options_of_their_run_folder(run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    models = moved / "experiments" / "train" / "models"
    for file in models.iterdir():
        content = torch.load(file, weights_only=True)
        del content[IDENTITY_KEY]
        torch.save(content, file)
    _, lines = trained_network(str(moved / "architecture.yaml"), str(models / "net_g_8.pth"))
    assert lines == []
    other = tmp_path / "other.yaml"
    basic(8, "conv_3x3_d2").save(other)
    with pytest.raises(InputError, match="block body_0: conv_3x3 in the file and conv_3x3_d2"):
        trained_network(str(other), str(models / "net_g_8.pth"))
    with pytest.raises(InputError, match="full precision in the file and 8 bits in the architecture"):
        trained_network(str(moved / "architecture.yaml"), str(models / "net_g_2.pth"))


def test_a_checkpoint_of_the_full_precision_iterations_starts_a_training(
    run: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = run / "experiments" / "train" / "models" / "net_g_2.pth"
    again = trained(str(run / "architecture.yaml"), str(checkpoint), dataset, tmp_path / "run")
    assert "(trained, 2 of 4 iterations in full precision, quantization not begun)" in capsys.readouterr().out
    network, lines = trained_network(str(again / "architecture.yaml"), str(again / "network.safetensors"))
    assert lines == [] and all(layer.activation_quantizer.started for layer in quantized_layers(network))
    assert "Quantization begins; all steps start anew" in (again / "train.log").read_text()


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("was_run"),)


def test_files_that_are_no_weights_are_refused_and_run_nothing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    architecture, weights = save(basic(8), tmp_path / "own")
    state = read_weight_file(weights).weights
    torch.save({"params": state, "more": _Hostile()}, "hostile.pth")
    torch.save({"params": state, "more": _Hostile()}, "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"params": state}, "cut.pth")
    Path("cut.pth").write_bytes(Path("cut.pth").read_bytes()[:-2000])
    torch.save([1, 2], "list.pth")
    torch.save({"params": {"head": 3}}, "numbers.pth")
    torch.save({"params": state | {"head.0.1.weight": state["head.0.1.weight"] * float("nan")}}, "nan.pth")
    torch.save({"params": state, IDENTITY_KEY: "{}"}, "identity.pth")
    Path("folder.pth").mkdir()
    for file, reason in {
        "hostile.pth": r"holds more than tensors, which could run code",
        "legacy.pth": r"holds more than tensors, which could run code",
        "cut.pth": "the file is damaged",
        "list.pth": "hold a list and no network",
        "numbers.pth": "'head' is no plain tensor",
        "nan.pth": "not finite: 'head.0.1.weight' holds inf or nan",
        "identity.pth": "has a damaged identity",
        "folder.pth": "do not exist",
    }.items():
        for recipe, words in ((evaluate, ["--data", f"a={images}"]), (train, ["--run", "run"])):
            with pytest.raises(InputError, match=reason) as caught:
                recipe.main(["--architecture", architecture, "--weights", file, *words])
            assert "\n" not in str(caught.value)
    assert not Path("was_run").exists() and not Path("run").exists()


def test_pretrained_weights_of_other_bits_do_not_come_in_through_basicsr(run: Path, tmp_path: Path) -> None:
    from quantnas_ext.sr.training.final_training import train as train_by_options

    _, weights = save(basic(4), tmp_path / "four", identity=False)
    torch.save({"params": read_weight_file(weights).weights}, tmp_path / "four.pth")
    shutil.copy(run / "options.yml", tmp_path / "options.yml")
    options = ["-opt", str(tmp_path / "options.yml"), "--force_yml"]
    with pytest.raises(InputError, match="4 bits in the file and 8 bits in the architecture"):
        train_by_options([*options, f"path:pretrain_network_g={tmp_path / 'four.pth'}"])
    assert not (tmp_path / "experiments").exists()
