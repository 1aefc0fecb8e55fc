"""Weights of found networks as safetensors: writing them, and loading them strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from quantnas_ext.architecture import Architecture
from quantnas_ext.atomic import atomic_file
from quantnas_ext.errors import InputError
from quantnas_ext.paths import seen_from
from quantnas_ext.quantization import FULL_PRECISION_BITS, reset_steps

__all__ = ["load_weights", "read_weights", "save_weights"]


def save_weights(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a state dict as safetensors; the file appears complete or not at all."""
    with atomic_file(path) as temporary:
        # Copies: safetensors refuses tensors that share memory or are laid out channels last.
        temporary.write_bytes(save({key: value.detach().cpu().clone().contiguous() for key, value in weights.items()}))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU.

    Raises:
        InputError: The file is missing or is not safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights '{path}' do not exist{seen_from(path)}; name a .safetensors file of the network")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"weights '{path}' are no readable safetensors file ({error}); name another file") from error


def load_weights(
    network: nn.Module, path: str | Path, architecture: Architecture, *, same_precision: bool = True
) -> None:
    """Load weights into a network, every key of the file accounted for.

    The file holds the weights of `architecture` as it stands, or those of its full-precision version. In the first
    case, and where the network has the architecture's own precisions, all is loaded; otherwise the quantizers' steps
    belong to other precisions (or are missing) and start anew, the weights' at once, the activations' from the next
    batch.

    Args:
        network: Built from `architecture` or from `architecture.with_precision(...)`.
        path: A safetensors file.
        architecture: What the weights belong to.
        same_precision: Whether the network has the architecture's own precisions.

    Raises:
        InputError: The file is missing or damaged, or belongs to another network.
    """
    weights = read_weights(path)
    own = architecture.build().state_dict()
    full_precision = architecture.with_precision(FULL_PRECISION_BITS).build().state_dict()
    expected = own if weights.keys() == own.keys() else full_precision
    if weights.keys() != expected.keys():
        strange = min(weights.keys() ^ own.keys())
        raise InputError(
            f"weights '{path}' belong to another network: they {'lack' if strange in own else 'have'} '{strange}'; "
            "name the weights of this architecture"
        )
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise InputError(
                f"weights '{path}' belong to another network: '{key}' has shape {list(value.shape)} and not "
                f"{list(expected[key].shape)}; name the weights of this architecture"
            )
    if same_precision and expected is own:
        network.load_state_dict(weights)
    else:
        network.load_state_dict({key: weights[key] for key in full_precision}, strict=False)
        reset_steps(network)
