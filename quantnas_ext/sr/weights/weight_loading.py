"""Loading the weights of found networks: what they belong to is compared with the network, and nothing is left over."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import (
    ACTIVATION_QUANTIZERS,
    FULL_PRECISION_BITS,
    WEIGHT_QUANTIZERS,
    Precision,
    reset_steps,
    without_observation,
)
from quantnas_ext.quantization.protocol import DEFAULT
from quantnas_ext.sr.weights.weight_files import WeightFile, read_weight_file
from quantnas_ext.sr.weights.weight_identity import WeightIdentity, kinds_in, layer_names, with_kinds

OtherPrecisions = Literal["refused", "full", "any"]
"""Which weights of the same operations in other precisions are taken: none, those in full precision, all."""

_QUANTIZERS = ("weight_quantizer", "activation_quantizer")


def load_weights(
    network: nn.Module, path: str | Path, architecture: Architecture, *, other_precisions: OtherPrecisions = "refused"
) -> list[str]:
    """Load weights into a network, every key of the file accounted for.

    The file's identity is compared with the architecture's. Where both are one, all is loaded. Where only precisions
    differ and that is wanted, the quantizers' steps are left out and start anew, the weights' at once and the
    activations' from the next batch.

    A file without an identity (of an earlier version, or saved by hand) is checked by names and shapes, by which layers
    have quantizers, and by the weights' steps: a step that lies far from the one of least error belongs to other bits.
    A difference of one bit, the activations' bits and dilations cannot be told so, which the returned lines say.

    Args:
        network: built from ``architecture``.
        path: a safetensors file, or a ``net_g_*.pth`` of BasicSR.
        architecture: the network's own.
        other_precisions: which weights of the same operations in other precisions are wanted.

    Returns:
        Lines for the user: that steps start anew and why, or what could not be checked. Mostly none.

    Raises:
        InputError: the file is missing or damaged, or belongs to another network or to precisions that are not wanted;
            the network is then as it was.
    """
    file, own, layers, identity = _compared(path, architecture, network)
    lines = []
    if file.identity is None:
        lines.append(
            f"weights '{path}' do not say which network they belong to; names, shapes and the weights' steps fit "
            "this one; what leaves no trace there, such as the activations' bits and dilations, cannot be checked"
        )
    difference = identity.precision_difference(own)
    if difference is None:
        expected = without_observation(network.state_dict())
        if missing := [key for key in expected if key not in file.weights]:
            raise InputError(
                f"weights '{path}' belong to another network: they lack '{missing[0]}'; "
                "name the weights of this architecture"
            )
        network.load_state_dict({key: file.weights[key] for key in expected})
        if _unstarted(file) and not own.full_precision:
            reset_steps(network)
            lines.append(f"weights '{path}' ({identity.state}): quantization has not begun, so steps start anew")
        return lines
    if other_precisions == "refused" or (other_precisions == "full" and not identity.full_precision):
        raise InputError(
            f"weights '{path}' ({identity.state}) belong to other precisions: {difference}; "
            "name the weights of this architecture, or train it from these"
        )
    plain = {key: value for key, value in file.weights.items() if not _of_quantizer(key, layers)}
    network.load_state_dict(plain, strict=False)
    reset_steps(network)
    done = "steps are left out" if own.full_precision else "quantization steps start anew"
    lines.append(f"weights '{path}' ({identity.state}) belong to other precisions ({difference}): {done}")
    return lines


def check_weights(path: str | Path, architecture: Architecture) -> None:
    """Refuse a checkpoint that is none of an architecture's training; one of its full-precision iterations is.

    Raises:
        InputError: the file is missing or damaged, or belongs to another network or to other precisions.
    """
    file, own, _, identity = _compared(path, architecture, architecture.build())
    difference = identity.precision_difference(own)
    if difference is not None and not (identity.full_precision and _unstarted(file)):
        raise InputError(
            f"weights '{path}' ({identity.state}) belong to other precisions: {difference}; "
            "name weights of this architecture"
        )


def _unstarted(file: WeightFile) -> bool:
    """Whether there are activation steps to start and none has started, as before any quantized training."""
    started = [bool(value) for key, value in file.weights.items() if key.endswith(".started") and value.numel() == 1]
    return bool(started) and not any(started)


def _identity(file: WeightFile, own: WeightIdentity, layers: Mapping[str, Any]) -> WeightIdentity:
    """What the weights of a file that fits a network belong to: as it says, else as its quantizers imply."""
    if file.identity is not None and (file.written_inside or file.identity.full_precision):
        return file.identity
    state = "of an earlier version" if file.identity is None else file.identity.state
    if _unstarted(file):  # steps that start anew in any case tell nothing
        return dataclasses.replace(own, state=state)
    implied = _implied_precisions(file.weights, layers, file.identity or own)
    return dataclasses.replace(own, precisions=implied, state=state)


def _of_quantizer(key: str, layers: Mapping[str, Any]) -> bool:
    """Whether an entry of a state dict belongs to a quantizer of a layer, or would if the layer had one."""
    return any(f".{kind}." in key and key.partition(f".{kind}.")[0] in layers for kind in _QUANTIZERS)


def _compared(
    path: str | Path, architecture: Architecture, network: nn.Module
) -> tuple[WeightFile, WeightIdentity, dict[str, Any], WeightIdentity]:
    """Weights that differ from a network in precisions at most; its identity and quantized layers; their identity."""
    file, own, layers = read_weight_file(path), WeightIdentity.of(architecture), layer_names(network)
    expected = without_observation(network.state_dict())
    other = f"weights '{file.path}' belong to another network"
    if file.identity is not None and (difference := file.identity.network_difference(own)):
        raise InputError(f"{other}: {difference}; name the weights of this architecture")
    mine, theirs = ({key for key in keys if not _of_quantizer(key, layers)} for keys in (expected, file.weights))
    if mine != theirs:
        strange = min(mine ^ theirs)
        has = "lack" if strange in mine else "have"
        raise InputError(f"{other}: they {has} '{strange}'; name the weights of this architecture")
    others = file.identity is not None and file.identity.precision_difference(own) is not None
    kept = [key for key in expected if not (others and _of_quantizer(key, layers))]  # other quantizers start anew
    for key in kept:
        value, right = file.weights.get(key), expected[key]
        if value is None:  # a quantizer is there with all of its entries or not at all
            siblings = key.rpartition(".")[0] + "."
            if any(entry.startswith(siblings) for entry in file.weights):
                raise InputError(f"{other}: they lack '{key}'; name the weights of this architecture")
        elif value.numel() == right.numel() == 1:
            continue
        elif value.shape != right.shape:
            shapes = f"{list(value.shape)} and not {list(right.shape)}"
            raise InputError(f"{other}: '{key}' has shape {shapes}; name the weights of this architecture")
        elif value.is_floating_point() != right.is_floating_point():
            raise InputError(f"{other}: '{key}' holds {value.dtype} and not {right.dtype}; name others")
    return file, own, layers, _identity(file, own, layers)


def _implied_precisions(
    weights: Mapping[str, Tensor], layers: Mapping[str, Any], stated: WeightIdentity
) -> dict[str, str]:
    """The precision of each layer by the quantizers that a state dict has and by the size of its weights' steps.

    It is the stated one where nothing speaks against it.
    """
    found = {}
    for name, layer in layers.items():
        text, weight_kind, activation_kind = kinds_in(stated.precisions.get(name, str(layer.precision)))
        stated_bits, channels = Precision.parse(text), layer.weight.shape[0]
        states = [_state_of(weights, f"{name}.{quantizer}.") for quantizer in _QUANTIZERS]
        weight_bits, activation_bits = stated_bits.weight_bits, stated_bits.activation_bits
        kind = WEIGHT_QUANTIZERS.get(weight_kind)
        if states[0] and kind is not None:
            weight_bits = kind.implied_bits(states[0], weights[f"{name}.weight"], weight_bits)
        elif kind is not None and kind.stored_numbers(weight_bits, channels):
            weight_bits = FULL_PRECISION_BITS
        if activation_bits == stated_bits.weight_bits and states[0]:
            activation_bits = weight_bits  # which leave no trace of their own, and so are taken for alike
        other = ACTIVATION_QUANTIZERS.get(activation_kind)
        kept = (
            other is not None
            and activation_bits != FULL_PRECISION_BITS
            and other.stored_numbers(activation_bits, channels)
        )
        if bool(states[1]) != bool(kept):
            activation_bits, activation_kind = (weight_bits if states[1] else FULL_PRECISION_BITS), DEFAULT
        found[name] = with_kinds(str(Precision(weight_bits, activation_bits)), weight_kind, activation_kind)
    return found


def _state_of(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a state dict that begin so, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
