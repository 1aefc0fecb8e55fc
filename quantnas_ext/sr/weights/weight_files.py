"""Files of weights: safetensors, and the networks that BasicSR saves, each with the identity of what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.files.schema import read_yaml
from quantnas_ext.quantization import without_observation
from quantnas_ext.runs.run_folder import TrainingFolder
from quantnas_ext.sr.weights.first_bytes import first_bytes
from quantnas_ext.sr.weights.weight_identity import WeightIdentity

IDENTITY_KEY = "quantnas"
"""Where the identity stands: in the metadata of safetensors, and beside ``params`` in a file of BasicSR."""

_NETWORK_TYPE = "QuantNASNetwork"
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"


@dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        path: the file.
        weights: state dict, on the CPU.
        identity: what they belong to; None where nothing says so.
        written_inside: whether the identity stands in the file itself, and not in the options file of its run folder.
    """

    path: Path
    weights: dict[str, Tensor]
    identity: WeightIdentity | None
    written_inside: bool


def save_weights(weights: Mapping[str, Tensor], path: str | Path, identity: WeightIdentity | None = None) -> None:
    """Write a state dict as safetensors, with the identity that loading compares; complete or not at all.

    What activation quantizers remember of batches is left out (``without_observation``).
    """
    path = Path(path)
    # Copies: safetensors refuses tensors that share memory or are laid out channels last.
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in without_observation(weights).items()}
    # One entry: safetensors writes several in an order of chance.
    metadata = None if identity is None else {IDENTITY_KEY: identity.to_text()}
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def read_weight_file(path: str | Path) -> WeightFile:
    """Read safetensors, or a network of BasicSR (``net_g_*.pth``), whose moving average is taken where it has one.

    No code from the file is run. A file of BasicSR without an identity has that of the options file of its run folder.

    Raises:
        InputError: the file is missing, damaged, neither of these, holds code or values that are not finite, or has an
            identity that cannot be read.
    """
    path = Path(path)
    start = first_bytes(path)
    if start == _ZIP:
        weights, text = _read_pickle(path)
    else:
        try:
            with safe_open(path, "pt", device="cpu") as tensors:
                weights = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118 (no mapping)
                text = (tensors.metadata() or {}).get(IDENTITY_KEY)
        except (SafetensorError, OSError, ValueError) as error:
            if start[:1] != _PICKLE:  # torch's files before version 1.6
                raise InputError(
                    f"weights '{path}' are no readable safetensors file ({error}) and no net_g_*.pth of BasicSR; "
                    "name another file"
                ) from error
            weights, text = _read_pickle(path)
    for key, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise InputError(f"weights '{path}' are not finite: '{key}' holds inf or nan; name another file")
    weights = without_observation(weights)
    if text is None:
        beside = _identity_of_run(path) if path.name.startswith("net_g_") else None
        return WeightFile(path, weights, beside, written_inside=False)
    try:
        return WeightFile(path, weights, WeightIdentity.from_text(text), written_inside=True)
    except InputError as error:
        raise InputError(f"weights file '{path}' {error}") from error


def trained_state(iteration: int | str, total: int, full_precision: int) -> tuple[str, bool]:
    """What a final training has done to a network, and whether its quantization has not begun.

    ``iteration`` may be ``"latest"``, the end; ``full_precision`` of the ``total`` iterations are without quantization.
    """
    done = iteration if isinstance(iteration, int) else total
    if done <= full_precision:
        return f"trained, {done} of {full_precision} iterations in full precision, quantization not begun", True
    return f"trained, {done} iterations", False


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], object]:
    """Weights and identity from a file that torch has saved."""
    right = "name a net_g_*.pth of BasicSR or a .safetensors file"
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle raises nearly anything
        raise InputError(
            f"weights '{path}' cannot be read ({type(error).__name__}): the file is damaged, or holds more than "
            f"tensors, which could run code and is not loaded; {right}"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"weights '{path}' hold a {type(content).__name__} and no network; {right}")
    state = next((content[key] for key in ("params_ema", "params", "state_dict") if key in content), content)
    if not isinstance(state, Mapping) or not state:
        raise InputError(f"weights '{path}' hold no network; {right}")
    weights = {}
    for key, value in state.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(key, str) or not plain:
            raise InputError(f"weights '{path}' hold no network: '{key}' is no plain tensor; {right}")
        weights[key.removeprefix("module.")] = value.detach()  # a distributed network's prefix
    return weights, content.get(IDENTITY_KEY)


def _identity_of_run(path: Path) -> WeightIdentity | None:
    """The identity of a ``net_g_*.pth`` in a run folder, from the options file that BasicSR was given there."""
    for run in map(TrainingFolder, list(path.absolute().parents)[:4]):
        try:
            options = read_yaml(run.options.read_text(encoding="utf-8"))
            network = options["network_g"]
            if network["type"] != _NETWORK_TYPE:
                return None
            # Where the folder was moved, a copy of the architecture still lies beside the options.
            named = [run.path / network["architecture"], run.architecture]
            architecture = Architecture.load(next(file for file in named if file.is_file()))
            if network.get("precision") is not None:
                architecture = architecture.with_precision(network["precision"])
            number = path.stem.rpartition("_")[2]
            train = options["train"]
            state, unquantized = trained_state(
                int(number) if number.isdecimal() else number, train["total_iter"], train.get("full_precision_iter", 0)
            )
            identity = WeightIdentity.of(architecture, state)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):  # no such file, or another's
            continue
        return identity.in_full_precision() if unquantized else identity
    return None
