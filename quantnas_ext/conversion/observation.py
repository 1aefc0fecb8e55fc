"""One look at what the layers of a model read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from nni.nas.nn.pytorch import LayerChoice, Repeat
from torch import Tensor, nn

from quantnas_ext.deriving.calibration import evaluating
from quantnas_ext.errors import InputError, printable


def least_inputs(model: nn.Module, example_input: Any, layers: Mapping[str, nn.Module]) -> dict[str, float]:
    """Run a model in evaluation mode and note the least value that each layer reads.

    All candidates of all layer choices are run, and all blocks of a ``Repeat``. What follows a layer choice reads the
    output of each candidate in turn. Weights, statistics, modes and torch's random state stay as they are.

    Args:
        model: space or network.
        example_input: a tensor, a tuple of positional arguments, or a mapping of keyword arguments.
        layers: by path, as ``named_modules`` has them.

    Returns:
        By path the least value; a layer that is never called as a module is not there.

    Raises:
        InputError: when the model cannot run the input.
    """
    least: dict[str, float] = {}

    def note(path: str, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        x = inputs[0] if inputs else next(iter(keywords.values()), None)
        if isinstance(x, Tensor) and x.numel():
            least[path] = min(least.get(path, 0.0), float(x.detach().amin()))

    choices = [module for module in model.modules() if isinstance(module, LayerChoice)]
    hooks = [
        layer.register_forward_pre_hook(partial(note, path), with_kwargs=True)  # type: ignore[arg-type]
        for path, layer in layers.items()
    ]
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng():
            for turn in range(max((len(choice.names) for choice in choices), default=1)):
                with _all_parts(model, turn):
                    _call(model, example_input)
    finally:
        for hook in hooks:
            hook.remove()
    return least


def _call(model: nn.Module, example_input: Any) -> None:
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    try:
        if isinstance(example_input, Mapping):
            model(**example_input)
        else:
            model(*arguments)
    except Exception as error:  # whatever the model makes of it
        reason = printable((str(error).splitlines() or [type(error).__name__])[0])
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in arguments]
        raise InputError(
            f"the model cannot run the example input {', '.join(map(str, shapes))}: {reason}; give one that it takes"
        ) from error


@contextmanager
def _all_parts(model: nn.Module, turn: int) -> Iterator[None]:
    """Layer choices that run all candidates and put out that of a turn; repeats that run all blocks."""

    def candidates(choice: LayerChoice, *args: Any, **kwargs: Any) -> Any:
        outputs = [choice[name](*args, **kwargs) for name in choice.names]
        return outputs[turn % len(outputs)]

    def blocks(repeat: Repeat, x: Any) -> Any:
        for block in repeat.blocks:
            x = block(x)
        return x

    changed = []
    try:
        for module in model.modules():
            if isinstance(module, (LayerChoice, Repeat)):
                forward: Any = candidates if isinstance(module, LayerChoice) else blocks
                changed.append(module)
                module.forward = partial(forward, module)  # type: ignore[method-assign]
        yield
    finally:
        for module in changed:
            del module.forward
