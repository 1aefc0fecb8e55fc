"""One run of a model space, to see what it computes."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from nni.mutable import Categorical, Mutable
from nni.nas.nn.pytorch import ParametrizedModule, Repeat
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from torch import nn
from torch.nn.modules.conv import _ConvNd

from quantnas_ext.arguments import shape
from quantnas_ext.errors import InputError

PRODUCTS = (_ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
"""Layers that multiply, so that their arguments decide how much."""


class SharedVariants:
    """A module that holds several variants of itself, of one cost and with the same parameters: a network has one."""

    variants: nn.ModuleList


def dry_run(model: nn.Module, input_shape: tuple[int, ...], device: torch.device) -> None:
    """Run a model, without gradients, on an input of random numbers between 0 and 1.

    Args:
        model: space, supernet or network, on ``device``.
        input_shape: shape of the input with its batch dimension.
        device: of the input.

    Raises:
        InputError: when the shape is none, or the model cannot run an input of it.
    """
    input_shape = shape("input_shape", input_shape)
    try:
        with torch.no_grad():
            model(torch.rand(input_shape, device=device))
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the model cannot run an input of shape {tuple(input_shape)}: {reason}") from error


def refuse_searched_shapes(path: str, module: nn.Module, *, depths: bool = False) -> None:
    """Complain of a module whose cost is not a sum over candidates.

    Args:
        path: its path, for the message.
        module: any module of a space.
        depths: whether a depth that is chosen among plain numbers is fine.

    Raises:
        InputError: when its width, kernel size or depth is searched.
    """
    searched = []
    if isinstance(module, Repeat) and isinstance(module.depth_choice, Mutable):
        if depths and isinstance(module.depth_choice, Categorical):
            return
        searched = ["depth"]
    elif isinstance(module, MixedOperation):
        searched = list(module.mutable_arguments)
    elif isinstance(module, ParametrizedModule) and searched_arguments(module):
        searched = [] if variants_of_one_cost(module) else searched_arguments(module)
    if searched:
        raise InputError(
            f"module {path!r} ({type(module).__name__}) searches its {', '.join(searched)}, which changes its own "
            "shape or depth, whose cost is not known here; write the alternatives as candidates of a LayerChoice, or "
            "search without costs"
        )


def searched_arguments(module: ParametrizedModule) -> list[str]:
    """Names of the arguments of a module that are choices, but for the precision of a quantized layer."""
    return [key for key, value in module.trace_kwargs.items() if key != "bits" and isinstance(value, Mutable)]


def variants_of_one_cost(module: Any) -> list[nn.Module]:
    """A module of each combination of values that its arguments can have, where none of them changes its cost.

    That is so where nothing in it multiplies and all have parameters of the same shapes. Where their outputs differ in
    shape a search cannot sum them, so nothing behind them changes either.

    Args:
        module: a ``ParametrizedModule``.

    Returns:
        New modules, in the order of ``itertools.product`` over the choices; none where the cost depends on the values
        or modules within search something themselves.
    """
    choices = module.simplify()
    if (
        any(isinstance(part, PRODUCTS) for part in module.modules())
        or next(iter(module.mutable_descendants()), None) is not None
        or not all(isinstance(choice, Categorical) for choice in choices.values())
    ):
        return []
    samples = itertools.product(*(choice.values for choice in choices.values()))
    variants: list[nn.Module] = [module.freeze(dict(zip(choices, sample, strict=True))) for sample in samples]
    shapes = _shapes(module)
    return variants if all(_shapes(variant) == shapes for variant in variants) else []


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
