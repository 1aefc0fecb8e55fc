"""What every layer of a space costs, and under which choices it is there: found by running the space once."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from nni.nas.nn.pytorch import LayerChoice, Repeat
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from quantnas_ext.costs.dry_run import SharedVariants, dry_run, refuse_searched_shapes
from quantnas_ext.costs.products import ProductCounter
from quantnas_ext.costs.shapes_alone import without_values
from quantnas_ext.costs.traced_layer import (
    FULL_PRECISION,
    TracedLayer,
    deep_enough,
    described,
    traced_layer,
    with_depths,
)
from quantnas_ext.distribution.choices import Context
from quantnas_ext.errors import InputError
from quantnas_ext.nn.choice_block import SharedInput
from quantnas_ext.quantization.layers import QuantizedLayer

_log = logging.getLogger(__name__)

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYER_TYPES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *TRANSPOSED)
FUSED = (nn.RNNBase, nn.Bilinear)
"""Layers whose products happen inside one operation that torch's own counter does not know either."""

RUNNING_STATISTICS = ("running_mean", "running_var")


def trace_layers(model: nn.Module, input_shape: tuple[int, ...]) -> list[TracedLayer]:
    """Run a copy of a model space, supernet or concrete network once and list its layers.

    Every candidate of every layer choice and every block of a ``Repeat`` is run, so layers under all choices are seen;
    neither the model nor torch's random state is touched. The copy runs on the ``meta`` device, which computes shapes
    alone; a model that needs values, say for a branch, runs on its own device. MACs are those of convolutions,
    transposed ones too, and linear layers; torch's own counter runs along, so that nothing else that multiplies
    matrices goes unnoticed: products of a module itself, such as those of attention, count at 32 x 32 bits.

    Args:
        model: space, supernet or network.
        input_shape: shape of an input with its batch dimension, for example ``(1, 3, 32, 32)``; MACs are per sample.

    Raises:
        InputError: when the shape is none; when widths or kernel sizes are searched, or a depth by an expression, whose
            cost is not a sum over candidates; when the model cannot run an input of this shape; when it multiplies in
            fused layers (LSTM), or by the weight of a quantized layer that it does not call; when one layer stands
            under different choices.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _unfused():
        try:
            trace = _run(without_values(model), input_shape, torch.device("meta"))
        except Exception as error:  # of whatever kind the model makes of it
            trace = _run(copy.deepcopy(model), input_shape, device)  # which says what is wrong with a model that is
            _log.info("%s computes from values, so its costs were counted with them: %s", type(model).__name__, error)
    trace.refuse_uncounted()
    return trace.layers(input_shape[0])


def _run(model: nn.Module, input_shape: tuple[int, ...], device: torch.device) -> _Trace:
    """Run a copy that may be changed."""
    trace = _Trace(model.eval())
    with trace.hooks(), trace.counter:
        dry_run(model, input_shape, device)
    return trace


@contextmanager
def _unfused() -> Iterator[None]:
    """Attention as plain matrix products, which torch's counter sees on every device."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _as_they_are(layer: QuantizedLayer, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Operands of a layer that does not quantize."""
    return x, layer.weight, layer.bias


class _Trace:
    """What the modules of a copy of a model compute, and under which choices; it changes that copy.

    Args:
        model: the copy; every candidate of its layer choices will run.
    """

    def __init__(self, model: nn.Module) -> None:
        self.counter = ProductCounter()
        self._model = model
        self._macs: dict[nn.Module, int] = {}
        self._operations: dict[nn.Module, int] = {}  # of a module itself, without its children's
        self._contexts: dict[nn.Module, set[frozenset[Context]]] = {}
        self._products: dict[nn.Module, set[frozenset[Context]]] = {}  # where a module itself multiplies
        self._chosen: list[Context] = []
        self._open: list[list[int]] = []  # for every running module: count at its begin, and what its children counted
        self._paths = {module: path for path, module in model.named_modules()}
        for module, path in self._paths.items():
            refuse_searched_shapes(path, module, depths=True)
            if isinstance(module, LayerChoice):
                module.forward = self._all_candidates(module)  # type: ignore[method-assign]
            elif isinstance(module, Repeat):
                module.forward = partial(self._all_blocks, module)  # type: ignore[method-assign]
            elif isinstance(module, SharedInput):  # a supernet's would compute its blocks together
                module.forward = partial(SharedInput.forward, module)  # type: ignore[method-assign]
            elif isinstance(module, QuantizedLayer):  # finding steps takes most of the time, and no step is needed
                module.operands = partial(_as_they_are, module)  # type: ignore[method-assign]

    def _all_candidates(self, choice: LayerChoice) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            outputs = []
            for name in choice.names:
                self._chosen.append((choice.label, name))
                outputs.append(choice[name](*args, **kwargs))
                self._chosen.pop()
            return outputs[0]

        return forward

    def _all_blocks(self, repeat: Repeat, x: Any) -> Any:
        around = self._chosen
        for index, block in enumerate(repeat.blocks):
            self._chosen = [*around, *deep_enough(repeat, index)]
            x = block(x)
        self._chosen = around
        return x

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Listen to the model; one hook for all modules of the process, as hooks for each take longer than the run."""
        begin = register_module_forward_pre_hook(self._begin)
        end = register_module_forward_hook(self._end, with_kwargs=True)
        try:
            yield
        finally:
            begin.remove()
            end.remove()

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        if module in self._paths:
            self._open.append([self.counter.total, 0])

    def _end(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        if module not in self._paths:
            return
        begin, below = self._open.pop()
        whole = self.counter.total - begin
        if self._open:
            self._open[-1][1] += whole
        self._operations[module] = self._operations.get(module, 0) + whole - below
        if whole > below:
            self._products.setdefault(module, set()).add(frozenset(self._chosen))
        if isinstance(module, LAYER_TYPES):
            self._contexts.setdefault(module, set()).add(frozenset(self._chosen))
            counted = (inputs[0] if inputs else keywords["input"]) if isinstance(module, TRANSPOSED) else output
            macs = counted.numel() * module.weight[0].numel() if isinstance(counted, Tensor) else 0
            self._macs[module] = self._macs.get(module, 0) + macs

    def refuse_uncounted(self) -> None:
        """Complain of layers that computed something else than what their types say, or in place of quantized ones."""
        called = self._operations.keys()
        wrong = [
            f"{path!r} ({type(module).__name__})"
            for module, path in self._paths.items()
            if (isinstance(module, LAYER_TYPES) and self._operations.get(module, 0) != 2 * self._macs.get(module, 0))
            or (isinstance(module, FUSED) and module in called)
            or (
                module in self._products
                and any(isinstance(m, QuantizedLayer) and m not in called for m in module.modules())
            )
        ]
        if wrong:
            raise InputError(
                f"the multiplications of module {', '.join(wrong[:5])}{' and others' if wrong[5:] else ''} cannot be "
                "counted; call convolution and linear layers as modules, and use no fused ones, or search without costs"
            )

    def layers(self, batch: int) -> list[TracedLayer]:
        """All layers, each once.

        Args:
            batch: how many samples the input had.
        """
        places: dict[nn.Module, tuple[str, tuple[Context, ...]]] = {}
        self._place(self._model, "", (), places, set())
        layers = []
        seen: set[int] = set()
        for module, (path, context) in places.items():
            self._one_context(self._contexts.get(module, set()), path, module)
            if isinstance(module, LAYER_TYPES):
                seen.update(map(id, module.parameters(recurse=False)))
                layers.append(traced_layer(module, path, context, self._macs.get(module, 0) // batch))
                continue
            own: list[Tensor] = [p for p in module.parameters(recurse=False) if id(p) not in seen]
            seen.update(map(id, own))
            own += [b for name, b in module.named_buffers(recurse=False) if name in RUNNING_STATISTICS]
            numbers = sum(tensor.numel() for tensor in own)
            layers.append(TracedLayer(path, 0, 0, numbers, frozenset(context), {frozenset(): FULL_PRECISION}))
        for module, contexts in self._products.items():
            if not isinstance(module, LAYER_TYPES):
                path, macs = self._paths[module], self._operations[module] // (2 * batch)
                within = self._one_context(contexts, path, module)
                layers.append(TracedLayer(path, macs, 0, 0, within, {frozenset(): FULL_PRECISION}))
        return [with_depths(layer) for layer in layers]

    def _one_context(self, contexts: set[frozenset[Context]], path: str, module: nn.Module) -> frozenset[Context]:
        if len(contexts) > 1:
            uses = " and ".join(sorted(described(context) for context in contexts))
            raise InputError(
                f"layer {path!r} ({type(module).__name__}) stands under different choices ({uses}), so its cost is not "
                "that of one candidate; give every candidate layers of its own"
            )
        return next(iter(contexts), frozenset())

    def _place(
        self,
        module: nn.Module,
        path: str,
        context: tuple[Context, ...],
        places: dict[nn.Module, tuple[str, tuple[Context, ...]]],
        seen: set[tuple[nn.Module, frozenset[Context]]],
    ) -> None:
        """Note where every module that keeps something stands, and the choices above all places of it."""
        if (module, frozenset(context)) in seen:
            return
        seen.add((module, frozenset(context)))
        if isinstance(module, LAYER_TYPES) or (_keeps_something(module) and not hasattr(module, "arch_parameters")):
            places.setdefault(module, (path, context))
            self._contexts.setdefault(module, set()).add(frozenset(context))
        if isinstance(module, LAYER_TYPES):
            return
        if isinstance(module, SharedVariants):
            self._place(module.variants[0], f"{path}.variants.0", context, places, seen)
            return
        if isinstance(module, Repeat):
            for index, block in enumerate(module.blocks):
                deep = tuple(deep_enough(module, index))
                self._place(
                    block, f"{path}.blocks.{index}" if path else f"blocks.{index}", context + deep, places, seen
                )
            return
        # Not named_children, which leaves out the second of two candidates that are one module.
        for name, child in module._modules.items():
            if child is None:
                continue
            chosen: tuple[Context, ...] = ()
            if isinstance(module, LayerChoice):
                value = next(candidate for candidate in module.names if str(candidate) == name)
                chosen = ((module.label, value),)
            self._place(child, f"{path}.{name}" if path else name, context + chosen, places, seen)


def _keeps_something(module: nn.Module) -> bool:
    own = next(module.parameters(recurse=False), None)
    return own is not None or any(name in RUNNING_STATISTICS for name, _ in module.named_buffers(recurse=False))
