"""Batch norm made part of the layers before it, for good."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from quantnas_ext.deriving.calibration import evaluating
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import set_quantization
from quantnas_ext.quantization.layers import QuantizedLayer
from quantnas_ext.quantization.protocol import WeightQuantizer

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_TOLERANCE = 1e-9
"""Largest difference in double precision, relative to the largest output."""


@torch.no_grad()
def fold_batch_norm(network: nn.Module, example_input: Tensor) -> list[str]:
    """Fold batch norm into the convolution or linear layer whose output it reads, in place and for good.

    Weights and biases take over the running statistics, so that a network in evaluation mode gives what it gave, to
    rounding, and weight quantizers start anew from them. Done before a quantization-aware training, that training sees
    the weights that integers will hold. Where the output of a layer is read elsewhere too, or either is called more
    than once or shares its parameters, it is left as it is: what can be folded is found by running copies whose
    statistics are random numbers.

    Args:
        network: concrete, without choices.
        example_input: that it can run, on its device.

    Returns:
        Paths of the folded batch norms, which are now ``nn.Identity``, or what timm's has behind it, its activation.

    Raises:
        InputError: when the network cannot run the input.
    """
    pairs = _followed(network, example_input)
    if not _give_the_same(network, pairs, example_input):
        pairs = [pair for pair in pairs if _give_the_same(network, [pair], example_input)]
    for pair in pairs:
        _fold(network, *pair)
    return [norm for _, norm in pairs]


def _followed(network: nn.Module, x: Tensor) -> list[tuple[str, str]]:
    """Paths of layers and of the batch norms that read their outputs, each called once and alone with its weight."""
    calls: Counter[str] = Counter()
    outputs: dict[int, tuple[str, Any]] = {}  # the outputs are kept, so that no other gets the place of one
    pairs: list[tuple[str, str]] = []
    hooks = []

    def see_layer(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[path] += 1
            outputs[id(output)] = path, output

        return hook

    def see_norm(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            calls[path] += 1
            if id(inputs[0]) in outputs:
                pairs.append((outputs[id(inputs[0])][0], path))

        return hook

    for path, module in network.named_modules():
        if isinstance(module, _LAYERS):
            hooks.append(module.register_forward_hook(see_layer(path)))
        elif isinstance(module, _BatchNorm) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(see_norm(path)))
    try:
        with evaluating(network):
            network(x)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the network cannot run an example input of shape {list(x.shape)}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
    owners = Counter(id(parameter) for _, parameter in network.named_parameters(remove_duplicate=False))
    alone = {
        path: all(owners[id(p)] == 1 for p in network.get_submodule(path).parameters(recurse=False)) for path in calls
    }
    return [pair for pair in pairs if all(calls[path] == 1 and alone[path] for path in pair)]


def _give_the_same(network: nn.Module, pairs: list[tuple[str, str]], x: Tensor) -> bool:
    """Whether a network computes the same with pairs folded, whatever their statistics."""
    copied = copy.deepcopy(network).double().eval()
    set_quantization(copied, False)
    generator = torch.Generator().manual_seed(0)
    for _, path in pairs:
        norm: Any = copied.get_submodule(path)
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            if tensor is not None:
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    before = tree_leaves(copied(x.double()))
    for pair in pairs:
        _fold(copied, *pair)
    after = tree_leaves(copied(x.double()))
    return all(
        bool((old - new).abs().max() <= _TOLERANCE * old.abs().max())
        for old, new in zip(before, after, strict=True)
        if isinstance(old, Tensor)
    )


def _fold(network: nn.Module, layer_path: str, norm_path: str) -> None:
    layer: Any = network.get_submodule(layer_path)
    norm: Any = network.get_submodule(norm_path)
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    scale = (1.0 if norm.weight is None else norm.weight.double()) / deviation
    shift = -norm.running_mean.double() * scale + (0.0 if norm.bias is None else norm.bias.double())
    if layer.bias is not None:
        shift = shift + layer.bias.double() * scale
    scaled = layer.weight.double() * scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight.copy_(scaled)
    layer.bias = nn.Parameter(shift.to(layer.weight), requires_grad=layer.weight.requires_grad)
    if isinstance(layer, QuantizedLayer) and isinstance(layer.weight_quantizer, WeightQuantizer):
        layer.weight_quantizer.reset(layer.weight)
    parent, _, name = norm_path.rpartition(".")
    behind = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if isinstance(part, nn.Module)]
    setattr(network.get_submodule(parent), name, nn.Sequential(*behind) if behind else nn.Identity())
