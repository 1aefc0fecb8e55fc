"""What surrounds the phases of a search: frozen weights, seeded random numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn


@contextmanager
def frozen(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """No gradients for weights, and none of the work for them, within this context."""
    learning = [weight for weight in weights if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


@contextmanager
def seeded(seed: int, epoch: int, accelerator: Accelerator) -> Iterator[None]:
    """Random numbers as a function of (seed, process, epoch); the global state comes back afterwards."""
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + epoch) * 1_009 + accelerator.process_index)
        yield


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Give torch's (CPU), NumPy's and Python's random numbers back as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
