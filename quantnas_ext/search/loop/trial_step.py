"""A step of a search that leaves no trace, to see how long one takes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.search.loop.phases import same_random_numbers
from quantnas_ext.search.strategy import QuantNAS


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
