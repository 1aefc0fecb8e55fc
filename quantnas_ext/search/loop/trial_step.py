"""A step of a search that leaves no trace, to see how long one takes."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.search.strategy import QuantNAS

__all__ = ["same_random_numbers", "trial_step"]


@contextlib.contextmanager
def same_random_numbers() -> Iterator[None]:
    """Give torch's (CPU), NumPy's and Python's random numbers back as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def trial_step(space: ModelSpace, strategy: QuantNAS, shape: tuple[int, int, int, int]) -> Callable[[], None]:
    """Forward and backward pass of a supernet like the one that a search will make, on copies.

    Args:
        space: what will be searched; not changed.
        strategy: what it will be searched with; not changed, and without a space so far.
        shape: of a batch, ``[N, C, h, w]``.

    Returns:
        A function that runs one step. Random numbers are afterwards as they were before.
    """
    with same_random_numbers():
        searcher = copy.deepcopy(strategy)
        supernet = searcher.mutate_model(copy.deepcopy(space)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = torch.rand(shape).to(memory_format=torch.channels_last)

    def step() -> None:
        with same_random_numbers():
            searcher.context.bank.begin(0, 0, 0, 1)
            searcher.distribution.draw(0.0)
            supernet(inputs).square().mean().backward()
            supernet.zero_grad()

    return step
