from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import set_quantization
from quantnas_ext.sr.training.arch import QuantNASNetwork
from quantnas_ext.sr.weights.weight_files import read_weight_file, save_weights


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(1))


def test_loaded_weights_give_the_saved_network_s_output(search_folder: Path, batch: torch.Tensor) -> None:
    architecture, weights = str(search_folder / "architecture.yaml"), str(search_folder / "weights.safetensors")
    network = QuantNASNetwork(architecture, weights=weights)
    state = network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in read_weight_file(weights).weights.items())
    again = QuantNASNetwork(architecture, weights=weights)
    assert torch.equal(network(batch), again(batch)) and network.scale == 2
    assert not torch.equal(network(batch), QuantNASNetwork(architecture)(batch))


def test_full_precision_drops_the_quantizers_and_keeps_the_rest(search_folder: Path, batch: torch.Tensor) -> None:
    architecture, weights = str(search_folder / "architecture.yaml"), str(search_folder / "weights.safetensors")
    quantized = QuantNASNetwork(architecture, weights=weights)
    full_precision = QuantNASNetwork(architecture, precision=32, weights=weights)
    assert full_precision.state_dict().keys() < quantized.state_dict().keys()
    set_quantization(quantized, False)
    assert torch.equal(full_precision(batch), quantized(batch))


def test_steps_of_another_precision_start_anew(search_folder: Path, tmp_path: Path, batch: torch.Tensor) -> None:
    architecture, weights = str(search_folder / "architecture.yaml"), str(search_folder / "weights.safetensors")
    narrow = QuantNASNetwork(architecture, precision=4, weights=weights)
    steps = {key: value for key, value in narrow.state_dict().items() if key.endswith("weight_quantizer.log_step")}
    found = read_weight_file(weights).weights
    same = {key for key, value in steps.items() if torch.allclose(value, found[key])}
    # Steps depend on the weights and the bits alone, and three blocks had 4 bits already.
    assert len(steps) == 8 and len(same) == 3
    assert not any(value for key, value in narrow.state_dict().items() if key.endswith("started"))

    full_precision = QuantNASNetwork(architecture, precision=32, weights=weights)
    save_weights(full_precision.state_dict(), tmp_path / "full.safetensors")
    back = QuantNASNetwork(architecture, weights=str(tmp_path / "full.safetensors"))
    original = QuantNASNetwork(architecture, weights=weights)
    set_quantization(back, False)
    set_quantization(original, False)
    assert torch.equal(back(batch), original(batch))


def test_foreign_and_damaged_weights_are_refused(
    architecture: Architecture, search_folder: Path, tmp_path: Path
) -> None:
    file = search_folder / "architecture.yaml"
    weights = read_weight_file(search_folder / "weights.safetensors").weights
    key = next(iter(weights))
    variants = {
        "lacking": {name: value for name, value in weights.items() if name != key},
        "strange": weights | {"other.weight": torch.zeros(1)},
        "wide": weights | {key: torch.zeros(2, 2)},
    }
    reasons = {"lacking": f"they lack '{key}'", "strange": "they have 'other.weight'", "wide": "has shape"}
    for name, state in variants.items():
        save_weights(state, tmp_path / name)
        with pytest.raises(InputError, match=f"{name}' belong to another network: .*{reasons[name]}"):
            QuantNASNetwork(str(file), weights=str(tmp_path / name))
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(InputError, match="text' are no readable safetensors file"):
        QuantNASNetwork(str(file), weights=str(tmp_path / "text"))
    with pytest.raises(InputError, match="absent' do not exist"):
        QuantNASNetwork(str(file), weights=str(tmp_path / "absent"))


def test_saved_tensors_may_share_memory_and_be_laid_out_channels_last(tmp_path: Path) -> None:
    weight = torch.rand(4, 3, 3, 3).to(memory_format=torch.channels_last)
    save_weights({"a": weight, "b": weight}, tmp_path / "weights")
    assert torch.equal(read_weight_file(tmp_path / "weights").weights["b"], weight)
