"""The order in which a final training sees its images: BasicSR's, but with the seed, and going on where it was."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from quantnas_ext import compat

compat.prepare_basicsr()
import basicsr.train as basicsr_train  # noqa: E402
from basicsr.data.data_sampler import EnlargedSampler  # noqa: E402


class SeededSampler(EnlargedSampler):
    """BasicSR's ``EnlargedSampler`` with a permutation for each seed and epoch; BasicSR takes the epoch alone for it.

    An epoch yields the dataset ``ratio`` times in one random order, shared out among the processes. A training that
    goes on after ``done`` iterations gets what its epoch has left.

    Args:
        dataset: the images.
        num_replicas: number of processes.
        rank: of this process.
        ratio: how many times an epoch holds every image.
        seed: of the permutations.
        batch_size: images that a process takes in an iteration.
        done: iterations that lie behind, of which each whole epoch had as many as it has full batches.
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int,
        rank: int,
        ratio: int = 1,
        *,
        seed: int = 0,
        batch_size: int = 1,
        done: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, ratio)
        self.seed, self.batch_size, self.done = seed, batch_size, done

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.randperm(self.total_size, generator=generator)[self.rank :: self.num_replicas]
        begun = self.done - self.epoch * (self.num_samples // self.batch_size)
        return iter((order[max(0, begun) * self.batch_size :] % len(self.dataset)).tolist())


@contextlib.contextmanager
def ordered_by_seed(options: Mapping[str, Any]) -> Iterator[None]:
    """A scope in which BasicSR's pipeline takes ``SeededSampler`` for its ``EnlargedSampler``.

    The options are filled in by the time the pipeline makes its sampler.
    """
    state: dict[str, Any] = {}
    sampler, load_resume_state = basicsr_train.EnlargedSampler, basicsr_train.load_resume_state

    @functools.wraps(sampler)
    def seeded(*arguments: Any) -> SeededSampler:
        batch_size = options["datasets"]["train"]["batch_size_per_gpu"]
        done = state.get("iter", 0)
        return SeededSampler(*arguments, seed=options["manual_seed"], batch_size=batch_size, done=done)

    def load(opt: dict[str, Any]) -> Any:
        found = load_resume_state(opt)
        state.update({} if found is None else {"iter": found["iter"]})
        return found

    basicsr_train.EnlargedSampler, basicsr_train.load_resume_state = seeded, load
    try:
        yield
    finally:
        basicsr_train.EnlargedSampler, basicsr_train.load_resume_state = sampler, load_resume_state
