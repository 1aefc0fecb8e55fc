"""One run of a model space, to see what it computes."""

from __future__ import annotations

import torch
from nni.mutable import Mutable
from nni.nas.nn.pytorch import ParametrizedModule, Repeat
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from torch import nn

from quantnas_ext.arguments import shape
from quantnas_ext.errors import InputError


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


def refuse_searched_shapes(path: str, module: nn.Module) -> None:
    """Complain of a module whose cost is not a sum over candidates.

    Args:
        path: its path, for the message.
        module: any module of a space.

    Raises:
        InputError: when its width, kernel size or depth is searched.
    """
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
