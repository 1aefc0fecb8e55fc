"""A model space cut into what runs together: every candidate of every layer choice by itself, and the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from nni.nas.nn.pytorch import LayerChoice
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from quantnas_ext.costs.dry_run import dry_run, refuse_searched_shapes
from quantnas_ext.distribution.choices import Context
from quantnas_ext.quantization import set_quantization

Operations = tuple[str, ...]
"""What a part computes: torch's operations in their order, with the shapes of their operands."""


@dataclass(frozen=True)
class Part:
    """One call of a candidate, without what the layer choices within it compute; or the whole space, likewise.

    Attributes:
        context: the choices ``(label, value)`` under which it runs; none for the space itself.
        operations: what it computes. Parts of the same operations take the same time.
    """

    context: frozenset[Context]
    operations: Operations


@dataclass(frozen=True)
class Parts:
    """All parts of a space.

    Attributes:
        parts: in the order in which they end; a candidate that is called twice is there twice.
        runs: for all different operations a function that computes them.
    """

    parts: tuple[Part, ...]
    runs: dict[Operations, Callable[[], None]]


def cut_space(model: nn.Module, input_shape: tuple[int, ...], device: torch.device) -> Parts:
    """Cut a copy of a space, supernet or network at its layer choices, by running it once.

    Quantizers are off and the mode is that of evaluation, so a quantized layer is the float layer, whatever its
    precisions. Every candidate of every layer choice is run; neither the model nor torch's random state is touched.
    Together the parts whose choices an architecture makes compute what its network computes.

    Args:
        model: space, supernet or network.
        input_shape: shape of an input with its batch dimension.
        device: where the parts run.

    Raises:
        InputError: when the shape is none; when the model cannot run an input of it; when widths, kernel sizes or
            depths are searched.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        model = copy.deepcopy(model).to(device).eval()
        set_quantization(model, False)
        cut = _Cut(model)
        with cut.operations:
            dry_run(model, input_shape, device)
    return Parts(tuple(cut.parts), cut.runs)


class _Cut:
    """Records the parts of a copy of a model while it runs, and plays them back; it changes that copy.

    Args:
        model: the copy; every candidate of its layer choices will run.
    """

    def __init__(self, model: nn.Module) -> None:
        self.operations = _Operations()
        self.parts: list[Part] = []
        self.runs: dict[Operations, Callable[[], None]] = {}
        self._context: tuple[Context, ...] = ()
        self._outputs: list[list[Any]] = [[]]  # for every running part: outputs of the layer choices within it
        self._played: Iterator[Any] | None = None
        for path, module in model.named_modules():
            refuse_searched_shapes(path, module)
            if isinstance(module, LayerChoice):
                module.forward = partial(self._choose, module)  # type: ignore[method-assign]
        model.forward = partial(self._record, model.forward)  # type: ignore[method-assign]

    def _choose(self, choice: LayerChoice, *args: Any, **kwargs: Any) -> Any:
        """In place of a layer choice: all its candidates or, while a part around it is played, what it gave then."""
        if self._played is not None:
            return next(self._played)
        around = self._context
        outputs = []
        for name in choice.names:
            self._context = (*around, (str(choice.label), name))
            outputs.append(self._record(choice[name], *args, **kwargs))
        self._context = around
        self._outputs[-1].append(outputs[0])
        return outputs[0]

    def _record(self, module: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a part and note what it computes."""
        if self._played is not None:
            return module(*args, **kwargs)
        self._outputs.append([])
        self.operations.open.append([])
        output = module(*args, **kwargs)
        operations, within = tuple(self.operations.open.pop()), self._outputs.pop()
        context = frozenset(self._context)
        # A choice within a candidate of its own label never takes a second value.
        if len({label for label, _ in context}) == len(context):
            self.parts.append(Part(context, operations))
        self.runs.setdefault(operations, partial(self._play, module, args, kwargs, within))
        return output

    def _play(
        self, module: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], within: list[Any]
    ) -> None:
        """Run a part again, on the same inputs."""
        self._played = iter(within)
        try:
            with torch.no_grad():
                module(*args, **kwargs)
        finally:
            self._played = None


class _Operations(TorchDispatchMode):
    """Writes down the operations that run, for the innermost of the parts that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[list[str]] = [[]]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.open[-1].append(f"{func}{_described(args)}{_described(kwargs or {})}")
        return func(*args, **(kwargs or {}))


def _described(value: Any) -> str:
    """An operand as text; of a tensor what its time depends on."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(_described, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_described(item)}' for name, item in value.items())}}}"
    return str(value)
