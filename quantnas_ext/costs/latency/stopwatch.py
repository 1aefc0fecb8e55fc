"""Times of short computations on a machine that also does other things."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm

WARM_UP = 3
"""Rounds at the start that do not count: kernels are chosen and caches filled in them."""

FEWEST = 5
"""Rounds that are timed, however long they take."""


def median_times(runs: Sequence[Callable[[], None]], device: torch.device, rounds: int, seconds: float) -> list[float]:
    """Milliseconds of every run: medians over rounds in each of which every run has its turn once.

    So what slows the machine for a while slows all of them alike. The order is another one in every round, and each run
    finds the caches as others have left them, as within a network.

    Args:
        runs: what is timed.
        device: where they compute; each is waited for.
        rounds: how often each is timed, at most; at least 1.
        seconds: no further round begins after that long, once ``FEWEST`` are done.
    """
    times: list[list[float]] = [[] for _ in runs]
    order = list(range(len(runs)))
    shuffle = random.Random(0).shuffle
    begin = time.perf_counter()
    for number in tqdm(range(-WARM_UP, rounds), desc="latency", unit="round"):
        if number >= FEWEST and time.perf_counter() - begin > seconds:
            break
        shuffle(order)
        for index in order:
            start = time.perf_counter()
            runs[index]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= 0:
                times[index].append(1e3 * (time.perf_counter() - start))
    return [statistics.median(of_run) for of_run in times]
