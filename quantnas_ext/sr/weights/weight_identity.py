"""What weights belong to: a network of a space and its precisions, written into weight files and compared at loading.

Tensors alone do not tell: steps of 4 and of 8 bits have one shape, and so have kernels with and without dilation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from quantnas_ext.architecture import Architecture
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError, shown
from quantnas_ext.quantization import FULL_PRECISION_BITS, quantized_layers
from quantnas_ext.quantization.protocol import DEFAULT
from quantnas_ext.spaces.registry import build_space, candidate_arguments, default_arguments, pinned_precisions

VERSION = 1
_IN_FULL_PRECISION = str(FULL_PRECISION_BITS)
_MOST_SHOWN = 2  # differences named in a sentence


@dataclass(frozen=True)
class WeightIdentity:
    """The network that weights belong to, and what was done to them.

    Attributes:
        space: name of the space.
        arguments: arguments of the space, defaults included, without those that only say what there is to choose.
        operations: label to operation, for every block; the choices of precision are in ``precisions``.
        precisions: name of each quantized layer to its precision, such as ``"8"`` or ``"w4a8 hwgq"``.
        state: in words: ``"supernet's, calibrated"``, ``"trained, 2000 iterations"``. Says nothing of the network.
    """

    space: str
    arguments: dict[str, Any]
    operations: dict[str, Any]
    precisions: dict[str, str]
    state: str = "in an unknown state"

    @classmethod
    def of(cls, architecture: Architecture, state: str = "in an unknown state") -> WeightIdentity:
        """The identity of weights of an architecture.

        Raises:
            InputError: the architecture's choices do not make a network.
        """
        network = architecture.build()
        name = architecture.space
        immaterial = {
            "bits",
            "activation_quantizer",
            "weight_quantizer",
            *pinned_precisions(name),
            *candidate_arguments(name),
        }
        arguments = {**default_arguments(name), **architecture.arguments}
        tree = ChoiceTree.of(build_space(name, architecture.arguments))
        choices = tree.complete(architecture.choices)
        searched = {choice.label for choice in tree if choice.kind == "precision"}
        return cls(
            name,
            _plain({argument: value for argument, value in sorted(arguments.items()) if argument not in immaterial}),
            _plain({label: value for label, value in sorted(choices.items()) if label not in searched}),
            {layer: _precision(module) for layer, module in layer_names(network).items()},
            state,
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the network, without the state, in 16 hexadecimal digits."""
        text = json.dumps([self.space, self.arguments, self.operations, self.precisions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def full_precision(self) -> bool:
        """Whether no layer is quantized."""
        return set(self.precisions.values()) <= {_IN_FULL_PRECISION}

    def in_full_precision(self) -> WeightIdentity:
        """The identity of the same operations without any quantization."""
        return replace(self, precisions=dict.fromkeys(self.precisions, _IN_FULL_PRECISION))

    def network_difference(self, other: WeightIdentity) -> str | None:
        """What the network of these weights (in the file) has other than ``other`` (the architecture), but for bits."""
        if self.space != other.space:
            return f"space {self.space} in the file and {other.space} in the architecture"
        # An argument that the file does not have came later; its default is what was there before.
        defaults = default_arguments(other.space).items()
        arguments = {name: _plain(value) for name, value in defaults if name in other.arguments}
        for kind, mine, others in (
            ("arguments", arguments | self.arguments, other.arguments),
            ("operations", self.operations, other.operations),
        ):
            different = [
                f"{'block ' if kind == 'operations' else ''}{name}: {_shown(mine, name)} in the file and "
                f"{_shown(others, name)} in the architecture"
                for name in sorted(mine.keys() | others.keys())
                if name not in mine or name not in others or mine[name] != others[name]
            ]
            if different:
                return _first(different)
        if self.precisions.keys() != other.precisions.keys():
            return f"layer {min(self.precisions.keys() ^ other.precisions.keys())} is in one of them only"
        return None

    def precision_difference(self, other: WeightIdentity) -> str | None:
        """Which layers have other precisions in the file (these weights) than in the architecture (``other``)."""
        different = [
            f"layer {name}: {_in_words(bits)} in the file and {_in_words(other.precisions[name])} in the architecture"
            for name, bits in self.precisions.items()
            if bits != other.precisions.get(name, bits)
        ]
        return _first(different) if different else None

    def to_text(self) -> str:
        """One line of JSON."""
        content = {
            "version": VERSION,
            "identity": self.digest,
            "state": self.state,
            "space": self.space,
            "arguments": self.arguments,
            "operations": self.operations,
            "precisions": self.precisions,
        }
        return json.dumps(content)

    @classmethod
    def from_text(cls, text: object) -> WeightIdentity:
        """Read what ``to_text`` wrote.

        Raises:
            InputError: it is damaged or of a later version; the sentence goes on after the name of a file.
        """
        try:
            content = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict) and isinstance(content.get("version"), int) and content["version"] > VERSION:
            raise InputError(f"has an identity of version {content['version']}; this program reads version {VERSION}")
        kinds = {"space": str, "arguments": dict, "operations": dict, "precisions": dict, "state": str}
        if isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
            found = cls(**{name: content[name] for name in kinds})
            if content.get("identity") == found.digest and all(isinstance(v, str) for v in found.precisions.values()):
                return found
        raise InputError("has a damaged identity; take an undamaged copy of the file")


def layer_names(network: Any) -> dict[str, Any]:
    """The quantized layers of a network by their names in its state dict."""
    quantized = set(quantized_layers(network))
    return {name: module for name, module in network.named_modules() if module in quantized}


def _precision(layer: Any) -> str:
    """A layer's precision in a few letters, with the names of its quantizers, whose grids are others than LSQ's."""
    weight_bits, activation_bits = layer.precision.weight_bits, layer.precision.activation_bits
    return with_kinds(
        str(layer.precision),
        DEFAULT if weight_bits == FULL_PRECISION_BITS else layer.weight_kind,
        DEFAULT if activation_bits == FULL_PRECISION_BITS else layer.activation_kind,
    )


def with_kinds(bits: str, weights: str, activations: str) -> str:
    """``"8"`` for LSQ alone, ``"8 hwgq"`` with other activations, ``"8 other/lsq"`` with other weights."""
    if weights != DEFAULT:
        return f"{bits} {weights}/{activations}"
    return bits if activations == DEFAULT else f"{bits} {activations}"


def kinds_in(precision: str) -> tuple[str, str, str]:
    """Bits, weight quantizer and activation quantizer of what ``with_kinds`` made."""
    bits, _, kinds = precision.partition(" ")
    weights, _, activations = kinds.rpartition("/")
    return bits, weights or DEFAULT, activations or DEFAULT


def _in_words(precision: str) -> str:
    """``"8"`` as "8 bits", ``"32"`` as "full precision", ``"w4a8 hwgq"`` as "w4a8 bits (hwgq)"."""
    bits, _, kind = precision.partition(" ")
    if bits == _IN_FULL_PRECISION:
        return "full precision"
    return f"{bits} bits" + (f" ({kind})" if kind else "")


def _first(differences: list[str]) -> str:
    """The first differences, and how many more there are."""
    more = len(differences) - _MOST_SHOWN
    return ", ".join(differences[:_MOST_SHOWN]) + (f", and {more} more" if more > 0 else "")


def _shown(values: Mapping[str, Any], name: str) -> str:
    """A value as YAML would write it, or that there is none."""
    if name not in values:
        return "nothing"
    value = values[name]
    return value if isinstance(value, str) and value.isprintable() and len(value) < 40 else shown(value)


def _plain(value: Any) -> Any:
    """What JSON gives back when it has written a value: lists for tuples, text for what it cannot write."""
    return json.loads(json.dumps(value, default=str))
