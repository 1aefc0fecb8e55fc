"""The order in which a search sees its data."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """A given number of indices an epoch: one random permutation of the data after another.

    The order is a function of the seed and the epoch alone: an interrupted search goes on with the same data, and all
    processes agree on the order that they share out among themselves.

    Args:
        length: size of the dataset.
        samples: indices an epoch; may be fewer or more than ``length``.
        seed: of the permutations.
    """

    def __init__(self, length: int, samples: int, seed: int) -> None:
        self.length = length
        self.samples = samples
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        left = self.samples
        while left > 0:
            order = torch.randperm(self.length, generator=generator)[:left].tolist()
            yield from order
            left -= len(order)
