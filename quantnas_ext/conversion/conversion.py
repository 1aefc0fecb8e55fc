"""A precision for every convolution and linear layer of a network, in place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import nni
from nni.mutable import frozen_context
from nni.mutable.exception import SampleValidationError
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule
from nni.nas.space import current_model
from torch import nn

from quantnas_ext.arguments import name_among
from quantnas_ext.conversion.layers import why_not, with_precision
from quantnas_ext.conversion.observation import least_inputs
from quantnas_ext.conversion.report import ConversionReport, ConvertedLayer, LeftLayer
from quantnas_ext.costs.dry_run import PRODUCTS
from quantnas_ext.errors import InputError, shown, unknown_name
from quantnas_ext.quantization.layers import QuantizedLayer
from quantnas_ext.quantization.precision import Precision, precision_choices

SHARING = ("layer", "candidate")
Bits = int | str | Sequence[int] | Precision


def quantize(
    model: nn.Module,
    bits: Iterable[Bits],
    example_input: Any,
    *,
    skip: Iterable[str] = (),
    fixed: Mapping[str, Bits] | None = None,
    share: str | Callable[[str], str] = "layer",
    signed: str | bool = "observe",
) -> ConversionReport:
    """Give every convolution (``nn.Conv2d``) and linear layer of a network or NNI space a precision, in place.

    Each becomes a ``MutableQuantConv2d`` or ``MutableQuantLinear`` with the *same parameter objects*, whose bits are an
    NNI choice; at 32 bits it computes what it did. Call it on an NNI space once it is built, or in the ``__init__`` of
    a space of your own (``model_context`` then works, too, unless blocks of the space are layer choices).
    ``QuantizedSpace`` makes a plain network a space.

    What cannot be converted stays in full precision, and the report says why: layers whose forward pass is their own,
    whose weight is made from or shared with others, whose width or kernel size is searched, that stand in two places,
    or that the example never calls as modules (as where a forward pass reads ``self.qkv.weight``).

    Args:
        model: network or space.
        bits: precisions that every layer offers, in any form that ``Precision.parse`` reads; 32 is full precision.
        example_input: what the model is run on once: a tensor, a tuple of arguments, or a mapping of keyword arguments.
            Values should be like those of real data, as the signs of layers' inputs are seen on it.
        skip: layers to leave in full precision: paths, or patterns such as ``"blocks.*.se"``; a path stands for all
            that is in it.
        fixed: precisions outside the search, by such paths or patterns; of two that match the later holds.
        share: which layers share a choice: none (``"layer"``), those of a candidate of a layer choice
            (``"candidate"``), or those for which a function of the path returns the same text.
        signed: ``"observe"``: inputs are signed where the example has a negative value in any candidate or block;
            or True or False for all layers.

    Returns:
        What was converted, and what was left and why.

    Raises:
        InputError: when nothing can be converted, the model has quantized layers already, a pattern matches no layer, a
            precision is impossible, a label is taken or unusable, or the model does not run the example. The model is
            then as it was.
    """
    values = precision_choices(bits)
    pinned = {pattern: precision_choices([value])[0] for pattern, value in (fixed or {}).items()}
    if not isinstance(signed, bool) and signed != "observe":
        raise InputError(f"signed={shown(signed)} is not possible; use 'observe', True or False")
    if not callable(share):
        name_among("way to share precisions", share, SHARING)
    if any(isinstance(module, QuantizedLayer) or hasattr(module, "bits_choice") for module in model.modules()):
        raise InputError(f"{type(model).__name__} has quantized layers already; give a network without")
    skip = [skip] if isinstance(skip, str) else list(skip)
    places, layers = _layers(model)
    for pattern in [*skip, *pinned]:
        if not any(_matches(path, pattern) for path in layers):
            raise unknown_name("layer, or pattern without a layer,", pattern, layers)
    least = least_inputs(model, example_input, layers)
    weights = _owners(model)
    converted, left = [], []
    for path, layer in layers.items():
        reason = why_not(layer)
        if any(_matches(path, pattern) for pattern in skip):
            reason = "it is to be skipped"
        elif reason is None and len(places[layer]) > 1:
            reason = f"one module stands in {len(places[layer])} places"
        elif reason is None and path not in least:
            reason = "it is never called as a module"
        elif reason is None and len(weights[id(layer.weight)]) > 1:
            reason = "another module has the same weight"
        if reason is not None:
            left.append(LeftLayer(path, type(layer).__name__, reason))
            continue
        own = [value for pattern, value in pinned.items() if _matches(path, pattern)]
        offered = tuple(own[-1:] or values)
        label = None if own or len(offered) == 1 else _label(model, path, share)
        negative = least[path] < 0 if signed == "observe" else bool(signed)
        converted.append(ConvertedLayer(path, type(layer).__name__, offered, label, negative))
    if not converted:
        reasons = sorted({layer.reason for layer in left}) or ["it has no convolution and no linear layer"]
        raise InputError(f"nothing in {type(model).__name__} can be quantized: {'; '.join(reasons)}")
    _check_labels(model, converted)
    with _context(model):
        made = {}
        for entry in converted:
            offered_bits = entry.bits[0] if entry.label is None else nni.choice(entry.label, list(entry.bits))
            try:
                made[entry.path] = with_precision(layers[entry.path], offered_bits, signed=entry.signed)
            except SampleValidationError as error:
                raise InputError(
                    f"the architecture in model_context has no precision {entry.label!r}; a space whose blocks are "
                    "layer choices has other paths there: build and convert it outside, and call freeze(sample)"
                ) from error
    for path, layer in made.items():
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent)._modules[name] = layer
    return ConversionReport(tuple(converted), tuple(left))


def _layers(model: nn.Module) -> tuple[dict[nn.Module, list[str]], dict[str, Any]]:
    """Every path of every module, and by its first path each layer that multiplies; not the root."""
    places: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        places.setdefault(module, []).append(path)
    layers = {paths[0]: module for module, paths in places.items() if isinstance(module, PRODUCTS) and paths[0]}
    return places, layers


def _owners(model: nn.Module) -> dict[int, list[nn.Module]]:
    """Modules by the parameters that they hold."""
    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(module)
    return owners


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern is for a layer or for something that it is in."""
    parts = path.split(".")
    return any(fnmatchcase(".".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def _label(model: nn.Module, path: str, share: str | Callable[[str], str]) -> str:
    """The label of a layer's choice."""
    if callable(share):
        name = share(path)
        if not isinstance(name, str) or not name:
            raise InputError(f"share gives {shown(name)} for layer {path!r}; it should return a text")
        return name
    if share == "candidate":
        parts = path.split(".")
        for count in range(len(parts) - 1, -1, -1):
            parent = model.get_submodule(".".join(parts[:count]))
            if isinstance(parent, LayerChoice):
                return _plain(f"{parent.label}__{parts[count]}__bits")
    return _plain(f"{path}__bits")


def _plain(label: str) -> str:
    """A label that NNI and torch take: no dots and no slashes."""
    return label.replace(".", "_").replace("/", "_")


def _check_labels(model: nn.Module, converted: Sequence[ConvertedLayer]) -> None:
    """Refuse labels that other choices of the model have, or that torch does not take."""
    taken = set(model.simplify()) if isinstance(model, MutableModule) else set()
    for entry in converted:
        if entry.label is None:
            continue
        if entry.label in taken:
            raise InputError(f"label {entry.label!r} of layer {entry.path!r} is taken by another choice of the space")
        if any(mark in entry.label for mark in "./"):
            raise InputError(f"label {entry.label!r} of layer {entry.path!r} has a dot or slash; use underscores")


def _context(model: nn.Module) -> Any:
    """Where NNI looks for what its choices are meanwhile."""
    if current_model() is not None or frozen_context.current() is not None:
        return contextlib.nullcontext()
    return model._frozen_context if isinstance(model, ModelSpace) else frozen_context()
