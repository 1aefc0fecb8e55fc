"""The state of activation quantizers, made the same in all processes of a distributed run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from quantnas_ext.quantization.protocol import ActivationQuantizer, activation_quantizers


@torch.no_grad()
def agree_on_steps(model: nn.Module | Sequence[ActivationQuantizer]) -> bool:
    """Make what activation quantizers have observed the same in all processes, and so their steps.

    Call it in every process after each backward pass. While a quantizer of any process may still change its step other
    than by its gradient (it has not started, or is observed or watched), what they observed (LSQ: histograms) is
    averaged over the processes, the furthest of their counts is taken, and steps are fitted to that. So a step starts
    everywhere with the first process that has something to start it from. When all have been watched to the end,
    nothing is sent any more.

    Args:
        model: the bare network, or its quantizers. The same in all processes, buffers included, when training begins.

    Returns:
        Whether there was something to agree on: other copies of the network, such as a moving average, are then behind.
    """
    everyone = activation_quantizers(model) if isinstance(model, nn.Module) else model
    quantizers = [quantizer for quantizer in everyone if quantizer.disagreeing]
    if not quantizers:
        return False
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        _spread(quantizers)
    for quantizer in quantizers:
        quantizer.agreed = quantizer.batches
    return True


def _spread(quantizers: Sequence[ActivationQuantizer]) -> None:
    """Average what processes have seen since they last agreed, and go on from there."""
    device = quantizers[0].observed()[1].device
    batches = torch.tensor([quantizer.batches for quantizer in quantizers], device=device)
    torch.distributed.all_reduce(batches, torch.distributed.ReduceOp.MAX)
    # Known to all alike, so that all send the same histograms.
    changed = [(q, most) for q, most in zip(quantizers, batches.tolist(), strict=True) if most > q.agreed]
    if not changed:
        return
    seen = [quantizer.observed() for quantizer, _ in changed]
    sums = torch.cat([values.flatten() for values, _ in seen])
    largest = torch.stack([top for _, top in seen])
    torch.distributed.all_reduce(sums, torch.distributed.ReduceOp.SUM)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    means = (sums / torch.distributed.get_world_size()).split([values.numel() for values, _ in seen])
    for (quantizer, most), mean, top in zip(changed, means, largest, strict=True):
        quantizer.take_over(mean, top, most)
