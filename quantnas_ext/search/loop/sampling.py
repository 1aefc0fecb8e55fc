"""The order in which a search sees its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from quantnas_ext.arguments import whole_number

FIXED_BATCHES = 50
"""Batches that scores beside a search are taken on, at most: enough for a mean, and a known share of its time."""


class EpochSampler(Sampler[int]):
    """A given number of indices an epoch: one random permutation of the data after another.

    The order is a function of the seed and the epoch alone: an interrupted search goes on with the same data, and all
    processes agree on the order that they share out among themselves.

    Args:
        length: size of the dataset.
        samples: indices an epoch; may be fewer or more than ``length``.
        seed: of the permutations.

    Raises:
        InputError: when there is nothing to draw from, or nothing to draw.
    """

    def __init__(self, length: int, samples: int, seed: int) -> None:
        self.length = whole_number("a dataset's length", length, least=1)
        self.samples = whole_number("a number of samples", samples, least=1)
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


class FixedBatches:
    """The same batches every time it is gone through: those of one epoch, each sample at most once.

    Args:
        dataset: one with ``set_epoch`` is told ``epoch``, and stays there.
        batch_size: samples in a batch; the last one may have fewer.
        batches: most batches.
        seed: of the order.
        epoch: whose samples these are; one that no search sees makes them new to it.
        workers: processes that load data.
        collate: makes a batch of samples; torch's own by default.

    Raises:
        InputError: for an empty dataset, or without a sample in a batch or a batch.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        batches: int,
        *,
        seed: int,
        epoch: int,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        length: int = len(dataset)  # type: ignore[arg-type]
        batch_size = whole_number("batch_size", batch_size, least=1)
        batches = whole_number("a number of batches", batches, least=1)
        self.dataset = dataset
        self.epoch = epoch
        sampler = EpochSampler(length, min(length, batches * batch_size), seed)
        sampler.set_epoch(epoch)
        self.loader: DataLoader[Any] = DataLoader(
            dataset, batch_size, sampler=sampler, num_workers=workers, collate_fn=collate
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(self.epoch)
        return iter(self.loader)
