"""Random numbers for quantization noise, kept in a buffer of which a part is renewed in every step."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from quantnas_ext.quantization.noise.additive import NoiseDistribution, is_dense, kept_for_training, unit_noise_

CHUNK = 2**16
"""Numbers that are renewed together."""

PERIOD = 16
"""Steps in which every chunk is renewed once."""

OFFSET_BITS = 16
"""Slices begin at one of 2 to the power of this places."""

ALIGNMENT = 16
"""The places are multiples of this, as vector instructions like it."""

REACH = 2**OFFSET_BITS * ALIGNMENT
"""Slices begin in the first so many numbers."""

MOST_REMEMBERED = 2**16
"""So many offsets are remembered for activations that are computed again, should no phase begin in between."""


class NoiseBank:
    """Unit noise tensors as slices of a buffer at random offsets.

    Drawing random numbers costs 15 to 40 elementwise passes on a CPU, a slice costs nothing. Each step renews a
    sixteenth of the buffer, so two tensors rarely overlap at the same place, and never for long. What a step sees is a
    function of seed, process, step and phase alone: a checkpoint needs no state of the bank, and a buffer that has
    grown since holds the same numbers. CPU and GPU hold different numbers.

    Where the backward pass computes activations again (``torch.utils.checkpoint``), they get the noise that they had:
    each slice takes a number from torch's generator, and checkpointing puts that back to where it was.

    Args:
        distribution: ``"uniform"`` on [-1/2, 1/2] or ``"gaussian"`` with standard deviation 1/2.
    """

    def __init__(self, distribution: NoiseDistribution = "uniform") -> None:
        self.distribution = distribution
        self._buffers: dict[torch.device, Tensor] = {}
        self._renewed: dict[torch.device, dict[int, int]] = {}
        self._key: tuple[int, int] | None = None
        self._step = 0
        self._offsets = random.Random()
        self._remembered: dict[int, int] = {}
        with kept_for_training():
            self._mark = torch.empty(1, dtype=torch.int64)

    def begin(self, seed: int, process: int, step: int, phase: int) -> None:
        """Begin a phase of a step; the offsets of its slices and the buffer's content follow from these numbers.

        Args:
            seed: of the search.
            process: rank of the process; each has its own noise.
            step: steps done.
            phase: 0 for the architecture step, 1 for the weight step.
        """
        if (seed, process) != self._key:
            self._renewed.clear()
        self._key, self._step = (seed, process), step
        self._offsets.seed(_mixed(seed, process, step, phase))
        self._remembered.clear()
        for device in self._buffers:
            self._renew(device)

    def take(self, like: Tensor) -> Tensor:
        """Noise of a tensor's shape and device: a float32 view of the buffer, good until the next ``begin``.

        In double precision for doubles. Without ``begin``, the first call begins with torch's seed.

        Args:
            like: the tensor. Its memory format is that of the noise too.

        Raises:
            RuntimeError: where activations are computed again without the state that torch's generator had.
        """
        if self._key is None:
            self.begin(torch.initial_seed(), 0, 0, 0)
        offset = self._place() * ALIGNMENT
        buffer = self._buffer(like.device, REACH + like.numel())
        if is_dense(like):
            noise = buffer.as_strided(like.shape, like.stride(), offset)
        else:
            noise = buffer[offset : offset + like.numel()].view(like.shape)
        return noise if like.dtype != torch.float64 else noise.double()

    def _place(self) -> int:
        """A random place; within a backward pass the one that the same activation had in the forward pass."""
        mark = int(self._mark.random_().numpy()[0])
        if torch._C._current_graph_task_id() == -1:
            if len(self._remembered) == MOST_REMEMBERED:
                self._remembered.clear()
            place = self._remembered[mark] = self._offsets.getrandbits(OFFSET_BITS)
            return place
        if mark not in self._remembered:
            raise RuntimeError(
                "layers with quantization noise cannot be computed again without the noise they had; call "
                "torch.utils.checkpoint with preserve_rng_state=True"
            )
        return self._remembered[mark]

    @property
    def step(self) -> int:
        """The step that ``begin`` was last told; 0 before."""
        return self._step

    def buffers(self) -> list[Tensor]:
        """The buffers of all devices."""
        return list(self._buffers.values())

    def _buffer(self, device: torch.device, least: int) -> Tensor:
        """The buffer of a device, grown to a least size where need be."""
        buffer = self._buffers.get(device)
        if buffer is None or buffer.numel() < least:
            with kept_for_training():
                self._buffers[device] = torch.empty(math.ceil(least / CHUNK) * CHUNK, device=device)
            self._renewed.pop(device, None)
            self._renew(device)
        return self._buffers[device]

    def _renew(self, device: torch.device) -> None:
        """Bring every chunk to its content of the present step."""
        assert self._key is not None
        renewed = self._renewed.get(device, {})
        self._renewed[device] = {}
        for index, chunk in enumerate(self._buffers[device].split(CHUNK)):
            due = self._step - (self._step - index) % PERIOD
            if renewed.get(index) != due:
                generator = torch.Generator(device).manual_seed(_mixed(*self._key, index, due))
                unit_noise_(chunk, self.distribution, generator)
            self._renewed[device][index] = due


def _mixed(*numbers: int) -> int:
    """One seed out of several numbers (a polynomial over a Mersenne prime)."""
    result = 0
    for number in numbers:
        result = (result * 0x9E3779B97F4A7C15 + number + 1) % (2**61 - 1)
    return result
