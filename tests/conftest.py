"""What tests of several parts need: one thread, and a count of BitOps that is not ours."""

import os

# The networks of tests are too small to gain from threads, and what two runs of a test compare may not differ by them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from quantnas_ext.quantization import QuantConv2d


@pytest.fixture
def independent_bitops() -> Callable[[nn.Module, tuple[int, ...]], float]:
    """torch's own FLOP counter for every layer of a network, times the bits that the layer says it has."""

    def count(network: nn.Module, shape: tuple[int, ...]) -> float:
        network.eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.rand(shape))
        total = 0.0
        for path, module in network.named_modules():
            if isinstance(module, QuantConv2d):
                flops = sum(counter.get_flop_counts()[f"{type(network).__name__}.{path}"].values())
                total += flops / 2 * module.precision.weight_bits * module.precision.activation_bits
        return total

    return count
