"""LSQ quantizers as modules: the learned steps of a layer's weights and of its input activations.

A step is stored as its logarithm, so it stays positive whatever the optimizer does, and a learning rate changes it
by a fraction of itself. (Stored as they are and trained by Adam at 1e-3, many steps of a small network end below zero.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from quantnas_ext.quantization.lsq import initial_step, integer_range, lsq_quantize
from quantnas_ext.quantization.magnitudes import (
    BINS,
    largest_magnitude,
    least_error_step,
    magnitude_histogram,
    squared_errors,
)
from quantnas_ext.quantization.precision import FULL_PRECISION_BITS
from quantnas_ext.quantization.protocol import ActivationQuantizer, WeightQuantizer, register_quantizer

OBSERVED_BATCHES = 64
"""Batches in training mode whose values an activation step starts from."""

WATCHED_BATCHES = 512
"""Batches in training mode, those included, in which an activation step that fits them badly is put right."""

MEMORY = 32
"""Batches that a histogram remembers: a plain mean of so many, an exponential one from then on."""

_WATCH_EVERY = 4  # batches
_FIRST_CORRECTION = OBSERVED_BATCHES + 8 * _WATCH_EVERY  # a watch may begin with an empty histogram
_TOLERATED = 4.0  # times the least squared error; what learning makes of a well-started step stays far below
_SMALLEST_LOG_STEP = math.log(1e-12)
_LARGEST_DRIFT = 1.5
"""Powers of two by which a trained step may differ from the one of least error and still be of the same bits; a bit
less doubles it, so that two bits are told apart and one is not."""

_OBSERVATION = ("seen", "histogram", "largest")
_Value = TypeVar("_Value")


def _positive(log_step: Tensor) -> Tensor:
    """The step of a logarithm, in float32 at least: in half precision the product of two steps would be zero.

    A copy comes first, as an observed step may change before the backward pass.
    """
    dtype = torch.promote_types(log_step.dtype, torch.float32)
    return log_step.to(dtype, copy=True).clamp_min(_SMALLEST_LOG_STEP).exp()


@register_quantizer("lsq")
class LSQWeightQuantizer(WeightQuantizer):
    """Signed LSQ with one learned step for each output channel."""

    def __init__(self, bits: int, weight_shape: Sequence[int]) -> None:
        super().__init__(bits, weight_shape)
        self.log_step = nn.Parameter(torch.zeros(weight_shape[0], *[1] * (len(weight_shape) - 1)))

    @property
    def step(self) -> Tensor:
        """The steps, ``[C_out, 1, ...]``, positive, in units of the weight."""
        return _positive(self.log_step)

    @torch.no_grad()
    def reset(self, weight: Tensor) -> None:
        """Start the steps anew from ``weight`` (least squared error in each channel).

        A channel of zeros (or of nothing finite), which has no error to go by, takes the mean of the other channels'
        steps, or where all are so a step for weights of the size that torch starts layers with, ``1 / sqrt(fan in)``.
        """
        self.log_step.copy_(self._start(weight).log())

    @torch.no_grad()
    def mend(self, weight: Tensor) -> None:
        """Start the step anew of every channel of ``weight`` that has more than four times the least squared error."""

        def error(step: Tensor) -> Tensor:
            difference = lsq_quantize(weight, step, self.bits, signed=True) - weight
            return difference.float().square().flatten(1).sum(dim=1).reshape(step.shape)

        start = self._start(weight)
        self.log_step.copy_(self.log_step.where(error(self.step) <= _TOLERATED * error(start), start.log()))

    def _start(self, weight: Tensor) -> Tensor:
        step = initial_step(weight, self.bits, signed=True, per_channel=True)
        flat = weight.flatten(1)
        zero = ((flat == 0) | ~flat.isfinite()).all(dim=1).reshape(step.shape)
        usual = 1.0 / math.sqrt(weight[0].numel()) / integer_range(self.bits, signed=True)[1]
        fallback = step[~zero].mean() if not zero.all() else step.new_tensor(usual)
        return torch.where(zero, fallback, step)

    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantized ``weight``, same shape."""
        return lsq_quantize(weight, self.step, self.bits, signed=True)

    def step_for(self, x: Tensor) -> Tensor:
        """The steps, whatever the weight."""
        return self.step

    @classmethod
    def implied_bits(cls, state: Mapping[str, Tensor], weight: Tensor, stated: int) -> int:
        """Bits for which the steps of a weight come nearest to those of least error.

        The median over the output channels has to lie off by more than a trained step would for it to be other than
        stated.
        """
        assumed = 8 if stated == FULL_PRECISION_BITS else stated
        weight, log_step = weight.float(), state.get("log_step", torch.empty(0)).float().flatten()
        alive = weight.flatten(1).abs().amax(dim=1) > 0
        if log_step.shape[0] != weight.shape[0] or not alive.any():
            return stated
        best = initial_step(weight, assumed, signed=True, per_channel=True).flatten()
        drift = (log_step / torch.tensor(2.0).log() - best.log2())[alive].median().item()
        return assumed if abs(drift) <= _LARGEST_DRIFT else min(16, max(2, assumed - round(drift)))

    def extra_repr(self) -> str:
        """What ``repr`` shows of it."""
        return f"bits={self.bits}, per output channel"


@register_quantizer("lsq")
class LSQActivationQuantizer(ActivationQuantizer):
    """LSQ with one learned step for the tensor, started from the first batches that it sees in training mode.

    For ``OBSERVED_BATCHES`` batches a histogram of their values is kept (of the last ``MEMORY`` or so, as a network
    that learns changes them), and the step is the one of least squared error on it. From then on it is learned. Until
    ``WATCHED_BATCHES`` every fourth batch still goes into the histogram, and a step with more than four times the least
    error, as after batches that were not like the rest, is put back to the one of least error.

    Until the first batch every input is quantized with a start of its own, so that a look at an untrained network
    leaves no trace in it. Zeros alone start nothing, values that are not finite count nowhere, and nothing is observed
    in evaluation mode, under ``torch.inference_mode`` or while ``log_step`` is frozen (``requires_grad=False``).

    The buffers go with the state dict, so a loaded quantizer keeps its step and goes on observing where it was. A state
    dict with ``log_step`` and ``started`` alone loads as one whose observation is over. In several processes
    ``agree_on_steps`` makes them the same everywhere.
    """

    started: Tensor
    seen: Tensor
    histogram: Tensor
    largest: Tensor

    def __init__(self, bits: int, *, signed: bool) -> None:
        super().__init__(bits, signed=signed)
        self.log_step = nn.Parameter(torch.zeros(()))
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("histogram", torch.zeros(2 if signed else 1, BINS))
        self.register_buffer("largest", torch.zeros(()))
        # These mirror the buffers: reading those in forward would synchronise with the GPU at every call.
        self._started = False
        self.observing = True

    @property
    def step(self) -> Tensor:
        """The step, a positive scalar in units of the activation, in float32 at least."""
        return _positive(self.log_step)

    def reset(self) -> None:
        """Forget the step; the next batches start it anew."""
        for buffer in (self.started, self.seen, self.histogram, self.largest):
            buffer.zero_()
        self.mirror()

    @torch.no_grad()
    def watch(self) -> None:
        """Watch a step that has started as if its observation had just ended, with nothing remembered.

        For a trained step that goes on learning, on data or in a training that it may not fit.
        """
        if self._started:
            self.seen.fill_(OBSERVED_BATCHES)
            self.histogram.zero_()
            self.largest.zero_()
            self.mirror()

    def end_observation(self) -> None:
        """Leave the step to its gradient from now on, however few batches have been seen."""
        self.seen.fill_(WATCHED_BATCHES)
        self.mirror()

    def mirror(self) -> None:
        """Read the buffers anew, after they were written from outside."""
        self._started = bool(self.started)
        self.batches = self.agreed = int(self.seen)
        self.observing = self.batches < WATCHED_BATCHES

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing: list[str], *others: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, *others)
        lacking = [key for key in (prefix + name for name in _OBSERVATION) if key not in state_dict]
        if lacking and prefix + "started" in state_dict:
            self.seen.fill_(WATCHED_BATCHES if self.started else 0)
            self.histogram.zero_()
            self.largest.zero_()
            missing[:] = [key for key in missing if key not in lacking]
        self.mirror()

    @torch.compiler.disable
    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Bring the step up to date with the batches before, and take one more, ``[N, ...]``, into the histogram.

        The first one starts the step.
        """
        # In this order the step is a function of what all processes have agreed on, but for the very first batch.
        if self._started and (self.batches <= OBSERVED_BATCHES or self._is_looked_at(self.batches - 1)):
            self.fit()
        largest = largest_magnitude(x, signed=self.signed)
        if not self._started and not largest > 0:
            return
        if self._is_looked_at(self.batches):
            # A plain sum while the histogram fills, then one that forgets; in float32, whatever the model is in.
            kept = self.histogram.float() * (1.0 if self.batches < MEMORY else 1 - 1 / MEMORY)
            self.histogram.copy_(kept + magnitude_histogram(x, signed=self.signed))
            self.largest.copy_(torch.maximum(self.largest.float(), largest))
        self.seen.add_(1)
        self.batches += 1
        self.observing = self.batches < WATCHED_BATCHES
        if not self._started:
            self.started.fill_(True)
            self._started = True
            self.fit()

    @staticmethod
    def _is_looked_at(batch: int) -> bool:
        """Whether a batch, counted from 0, goes into the histogram."""
        return batch < OBSERVED_BATCHES or batch % _WATCH_EVERY == 0

    @torch.no_grad()
    def fit(self) -> None:
        """Set the step by the histogram while it is observed, and while it is watched only where it is far off."""
        if not self._started or not self.largest > 0 or OBSERVED_BATCHES < self.batches < _FIRST_CORRECTION:
            return
        step, error = least_error_step(self.histogram, self.largest, self.bits, signed=self.signed)
        if self.batches > OBSERVED_BATCHES:
            own = squared_errors(self.histogram, self.largest, self.step[None], self.bits, signed=self.signed)
            if own <= _TOLERATED * error:
                return
        self.log_step.fill_(math.log(max(step, 1e-12)))

    def observed(self) -> tuple[Tensor, Tensor]:
        """The histogram and the largest value in it."""
        return self.histogram.float(), self.largest.float()

    @torch.no_grad()
    def take_over(self, mean: Tensor, largest: Tensor, batches: int) -> None:
        """Go on from what all processes have seen together: a histogram (any shape), its largest value, and a count."""
        self.histogram.copy_(mean.view_as(self.histogram))
        self.largest.copy_(largest)
        self.started.fill_(True)
        self.seen.fill_(batches)
        self.mirror()
        self.fit()

    def step_for(self, x: Tensor) -> Tensor | None:
        """The step that ``x`` is quantized with: the learned one, or before that the start that ``x`` would give it.

        None before the start where ``x`` has nothing to go by.
        """
        if self._started:
            return self.step
        return initial_step(x, self.bits, signed=self.signed) if largest_magnitude(x, signed=self.signed) > 0 else None

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantized ``x`` (``[N, ...]``), same shape; the gradient scale counts the elements of one sample."""
        if self.observing and self.training and self._may_change():
            self.observe(x)
        step = self.step_for(x)
        if step is None:
            # The step takes part, with no gradient: several processes wait for every parameter that one of them uses.
            return (x if self.signed else x.clamp_min(0)) + 0 * self.log_step.to(x.dtype)
        return lsq_quantize(x, step, self.bits, signed=self.signed, elements=max(1, x[0].numel()))

    def _may_change(self) -> bool:
        """Whether this is no mere look: not inference, nor frozen, nor a forward pass made anew in a backward one."""
        return (
            self.log_step.requires_grad
            and not torch.is_inference_mode_enabled()
            and torch._C._current_graph_task_id() == -1
        )


def without_observation(state: Mapping[str, _Value]) -> dict[str, _Value]:
    """A state dict without what activation quantizers remember of batches: weights and steps, to keep or to pass on."""
    prefixes = {key.removesuffix("started") for key in state if key.rpartition(".")[2] == "started"}
    quantizers = [prefix for prefix in prefixes if all(prefix + name in state for name in _OBSERVATION)]
    observation = {prefix + name for prefix in quantizers for name in _OBSERVATION}
    return {key: value for key, value in state.items() if key not in observation}
