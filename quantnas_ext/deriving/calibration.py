"""Fitting what a derived network measures rather than learns: batch norm statistics and first activation steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from quantnas_ext.errors import InputError
from quantnas_ext.quantization import activation_quantizers
from quantnas_ext.quantization.quantizers import OBSERVED_BATCHES


class _Moments:
    """Count, sum and sum of squares of each channel over all the inputs of one batch norm layer."""

    def __init__(self) -> None:
        self.calls, self.count, self.sum, self.squares = 0, 0, torch.zeros(()), torch.zeros(())

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach().double().transpose(0, 1).flatten(1)
        self.calls += 1
        self.count += x.shape[1]
        self.sum = self.sum.to(x) + x.sum(dim=1)
        self.squares = self.squares.to(x) + x.square().sum(dim=1)

    def write(self, layer: _BatchNorm) -> None:
        """Make these the running statistics; a layer that saw nothing keeps its own."""
        if not self.calls:
            return
        mean = self.sum / self.count
        assert layer.running_mean is not None and layer.running_var is not None
        layer.running_mean.copy_(mean)
        # Unbiased, as the batches' variances that torch averages are.
        layer.running_var.copy_((self.squares - self.count * mean.square()).clamp_min(0) / max(1, self.count - 1))
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.fill_(self.calls)


@torch.no_grad()
def recalibrate_batch_norm(network: nn.Module, batches: Iterable[Sequence[Tensor]]) -> None:
    """Give batch norm layers the mean and variance of their inputs over some batches, taken together.

    A derived network has the statistics of the whole supernet, whose mixtures have another scale. Each layer
    normalises by the statistics of the batch meanwhile, as in training; all others behave as in evaluation, so no
    quantizer starts and nothing is dropped. Only running statistics change, and those only at the end.
    (``torch.optim.swa_utils.update_bn`` averages the batches' variances, which leaves out how their means differ, and
    puts the whole network in training mode, which starts quantizers.)

    Args:
        network: left as it is if it has no batch norm with running statistics; the batches are not read then.
        batches: inputs first, ``[N, C, ...]``, on any device.

    Raises:
        InputError: when there are no batches, or one is empty.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        return
    moments = {layer: _Moments() for layer in layers}
    hooks = [layer.register_forward_pre_hook(moments[layer]) for layer in layers]
    tracking = {layer: layer.track_running_stats for layer in layers}
    try:
        with _modes(network, training=layers):
            for layer in layers:
                layer.track_running_stats = False  # in training mode: normalise by the batch, remember nothing
            for inputs, *_ in _on_device_of(network, batches, "calibrate"):
                network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, tracked in tracking.items():
            layer.track_running_stats = tracked
    for layer in layers:
        moments[layer].write(layer)


@torch.no_grad()
def calibrate(network: nn.Module, batches: Iterable[Sequence[Tensor]]) -> None:
    """Make a derived network ready to be scored: batch norm recalibrated, activation steps started.

    A step has the least squared error over the batches, or over the first ``OBSERVED_BATCHES`` where there are more,
    each layer reading what the layers before it give with the steps found so far. Those that have started already stay
    as they are.

    Args:
        network: a concrete network.
        batches: can be gone through twice; inputs first, on any device.

    Raises:
        InputError: when there are no batches, or one is empty.
    """
    recalibrate_batch_norm(network, batches)
    waiting = [quantizer for quantizer in activation_quantizers(network) if not quantizer.ready]
    # By hooks and not in training mode, so that frozen networks are calibrated as well.
    hooks = [q.register_forward_pre_hook(lambda quantizer, inputs: quantizer.observe(inputs[0])) for q in waiting]
    try:
        with _modes(network, training=()):
            enough = itertools.islice(batches, OBSERVED_BATCHES if waiting else 1)
            for inputs, *_ in _on_device_of(network, enough, "calibrate"):
                network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for quantizer in waiting:
        quantizer.fit()


@torch.no_grad()
def score(
    network: nn.Module,
    batches: Iterable[Sequence[Tensor]],
    metrics: dict[str, Callable[[Tensor, Tensor], Tensor]],
) -> dict[str, float]:
    """Means over batches, weighted with their sizes, in evaluation mode.

    Args:
        network: any; its modes come back afterwards.
        batches: inputs and targets, on any device.
        metrics: by name, functions of outputs and targets that give a scalar.

    Raises:
        InputError: when there are no batches, or one is empty.
    """
    totals, count = dict.fromkeys(metrics, 0.0), 0
    with _modes(network, training=()):
        for inputs, targets in _on_device_of(network, batches, "score"):
            outputs = network(inputs)
            count += len(inputs)
            for name, metric in metrics.items():
                totals[name] += float(metric(outputs, targets)) * len(inputs)
    return {name: total / count for name, total in totals.items()}


def _on_device_of(network: nn.Module, batches: Iterable[Sequence[Tensor]], purpose: str) -> Iterator[list[Tensor]]:
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    index = -1
    for index, batch in enumerate(batches):
        if not len(batch) or not len(batch[0]):
            raise InputError(f"batch {index} is empty; give batches of at least one sample")
        yield [tensor.to(device) for tensor in batch]
    if index < 0:
        raise InputError(f"there is no batch to {purpose} a network on; give at least one")


@contextmanager
def _modes(network: nn.Module, training: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode for all modules but the given ones; every module's own mode comes back afterwards."""
    before: dict[Any, bool] = {module: module.training for module in network.modules()}
    network.eval()
    for module in training:
        module.train()
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode
