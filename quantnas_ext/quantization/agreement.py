"""The state of activation quantizers, made the same in all processes of a distributed run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from quantnas_ext.quantization.quantizers import (
    WATCHED_BATCHES,
    LSQActivationQuantizer,
    activation_quantizers,
)


@torch.no_grad()
def agree_on_steps(model: nn.Module | Sequence[LSQActivationQuantizer]) -> bool:
    """Make what activation quantizers have observed the same in all processes, and so their steps.

    Call it in every process after each backward pass. While a quantizer of any process may still change its step other
    than by its gradient (it has not started, or is observed or watched), histograms are averaged over the processes,
    the furthest of their counts is taken, and steps are fitted to that. So a step starts everywhere with the first
    process that has something to start it from. When all have been watched to the end, nothing is sent any more.

    Args:
        model: the bare network, or its quantizers. The same in all processes, buffers included, when training begins.

    Returns:
        Whether there was something to agree on: other copies of the network, such as a moving average, are then behind.
    """
    everyone = activation_quantizers(model) if isinstance(model, nn.Module) else model
    quantizers = [quantizer for quantizer in everyone if quantizer.agreed < WATCHED_BATCHES]
    if not quantizers:
        return False
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        _spread(quantizers)
    for quantizer in quantizers:
        quantizer.agreed = quantizer.batches
    return True


def _spread(quantizers: Sequence[LSQActivationQuantizer]) -> None:
    """Average what processes have seen since they last agreed, and go on from there."""
    device = quantizers[0].log_step.device
    batches = torch.tensor([quantizer.batches for quantizer in quantizers], device=device)
    torch.distributed.all_reduce(batches, torch.distributed.ReduceOp.MAX)
    # Known to all alike, so that all send the same histograms.
    changed = [(q, most) for q, most in zip(quantizers, batches.tolist(), strict=True) if most > q.agreed]
    if not changed:
        return
    histograms = torch.cat([quantizer.histogram.flatten().float() for quantizer, _ in changed])
    largest = torch.stack([quantizer.largest.float() for quantizer, _ in changed])
    torch.distributed.all_reduce(histograms, torch.distributed.ReduceOp.SUM)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    parts = (histograms / torch.distributed.get_world_size()).split([q.histogram.numel() for q, _ in changed])
    for (quantizer, most), histogram, top in zip(changed, parts, largest, strict=True):
        quantizer.take_over(histogram, top, most)
