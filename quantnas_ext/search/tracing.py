"""What every layer of a space costs, and under which choices it is there: found by running the space once."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from nni.mutable import Mutable
from nni.nas.nn.pytorch import LayerChoice, ParametrizedModule, Repeat
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from torch import Tensor, nn

from quantnas_ext.errors import InputError
from quantnas_ext.quantization import FULL_PRECISION_BITS, Precision
from quantnas_ext.quantization.layers import QuantizedLayer
from quantnas_ext.search.choice_tree import Context

LAYER_TYPES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class TracedLayer:
    """One place where a space computes or keeps parameters.

    Attributes:
        path: module path in the space.
        macs: multiply-accumulate operations for one sample (0 for what is no convolution and no linear layer).
        weights: elements of its weight, which are stored at its precision.
        channels: elements of the weight's first dimension, each of which has a step when quantized.
        other_parameters: elements of everything else that is stored (bias, batch norm), at 32 bits.
        context: the choices ``(label, value)`` under which it is there.
        precision: the precision it always has, or None where it is searched.
        precision_label: label of its precision where that is searched.
        precisions: the values of that label.
    """

    path: str
    macs: int
    weights: int
    channels: int
    other_parameters: int
    context: tuple[Context, ...]
    precision: Precision | None
    precision_label: str | None = None
    precisions: tuple[Any, ...] = ()


def trace_layers(model: nn.Module, input_shape: tuple[int, ...]) -> list[TracedLayer]:
    """Run a copy of a model space, supernet or concrete network once and list its layers.

    Every candidate of every layer choice is run, so layers under all choices are seen; the model itself is not touched.

    Args:
        model: space, supernet or network.
        input_shape: shape of an input with its batch dimension, for example ``(1, 3, 32, 32)``; MACs are per sample.

    Raises:
        InputError: when widths, kernel sizes or depths are searched, whose cost is not a sum over candidates, or when
            the model cannot run an input of this shape.
    """
    model = copy.deepcopy(model).eval()
    for path, module in model.named_modules():
        _refuse_searched_shapes(path, module)
        if isinstance(module, LayerChoice):
            module.forward = _all_candidates(module)  # type: ignore[method-assign]
    macs: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        per_output = module.weight[0].numel()  # type: ignore[operator, union-attr, index]
        macs[module] = macs.get(module, 0) + output[0].numel() * int(per_output)

    for module in model.modules():
        if isinstance(module, LAYER_TYPES):
            module.register_forward_hook(count)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            model(torch.zeros(input_shape, device=device))
    except RuntimeError as error:
        raise InputError(f"the model cannot run an input of shape {tuple(input_shape)}: {error}") from error
    layers: list[TracedLayer] = []
    _walk(model, "", (), macs, layers, set())
    return layers


def _refuse_searched_shapes(path: str, module: nn.Module) -> None:
    searched_depth = isinstance(module, Repeat) and isinstance(module.depth_choice, Mutable)
    searched_shape = isinstance(module, MixedOperation) or (
        isinstance(module, ParametrizedModule)
        and any(isinstance(value, Mutable) for key, value in module.trace_kwargs.items() if key != "bits")
    )
    if searched_depth or searched_shape:
        raise InputError(
            f"module {path!r} ({type(module).__name__}) searches its own shape or depth, whose cost is not known here; "
            "write the alternatives as candidates of a LayerChoice, or search without costs"
        )


def _all_candidates(choice: LayerChoice) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return [choice[name](*args, **kwargs) for name in choice.names][0]

    return forward


def _walk(
    module: nn.Module,
    path: str,
    context: tuple[Context, ...],
    macs: dict[nn.Module, int],
    layers: list[TracedLayer],
    seen: set[int],
) -> None:
    if isinstance(module, LAYER_TYPES) and id(module) not in seen:
        seen.add(id(module))
        layers.append(_layer(module, path, context, macs.get(module, 0)))
        return
    own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
    if own and not hasattr(module, "arch_parameters"):
        seen.update(map(id, own))
        layers.append(TracedLayer(path, 0, 0, 0, sum(p.numel() for p in own), context, None))
    for name, child in module.named_children():
        chosen: tuple[Context, ...] = ()
        if isinstance(module, LayerChoice):
            value = next(candidate for candidate in module.names if str(candidate) == name)
            chosen = ((module.label, value),)
        _walk(child, f"{path}.{name}" if path else name, context + chosen, macs, layers, seen)


def _layer(module: nn.Module, path: str, context: tuple[Context, ...], macs: int) -> TracedLayer:
    weight: Tensor = module.weight  # type: ignore[assignment]
    bias = module.bias
    precision, label, values = Precision(FULL_PRECISION_BITS, FULL_PRECISION_BITS), None, ()
    searched = searched_precision(module)
    if searched is not None:
        label, values = searched.label, tuple(searched.values)
    elif isinstance(module, QuantizedLayer):
        precision = module.precision
    return TracedLayer(
        path=path,
        macs=macs,
        weights=weight.numel(),
        channels=weight.shape[0],
        other_parameters=0 if bias is None else math.prod(bias.shape),  # type: ignore[arg-type, union-attr]
        context=context,
        precision=None if label else precision,
        precision_label=label,
        precisions=values,
    )


def searched_precision(module: nn.Module) -> Any | None:
    """The NNI choice of a layer's precision, or None where the precision is fixed or there is none."""
    if isinstance(module, ParametrizedModule):
        bits = module.trace_kwargs.get("bits")
    else:
        bits = getattr(module, "bits_choice", None)
    return bits if isinstance(bits, Mutable) else None
