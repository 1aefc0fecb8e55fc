"""LSQ quantizers as modules: the learned steps of a layer's weights and of its input activations.

A step is stored as its logarithm, so it stays positive whatever the optimizer does, and a learning rate changes it
by a fraction of itself. (Stored as they are and trained by Adam at 1e-3, many steps of a small network end below zero.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from quantnas_ext.quantization.lsq import initial_step, integer_range, lsq_quantize

_SMALLEST_LOG_STEP = math.log(1e-12)


class LSQWeightQuantizer(nn.Module):
    """Signed LSQ with one learned step for each output channel.

    Args:
        bits: width of the integers, 2 to 16.
        weight_shape: shape of the weight, output channels first.
    """

    def __init__(self, bits: int, weight_shape: torch.Size) -> None:
        super().__init__()
        self.bits = bits
        self.log_step = nn.Parameter(torch.zeros(weight_shape[0], *[1] * (len(weight_shape) - 1)))

    @property
    def step(self) -> Tensor:
        """The steps, ``[C_out, 1, ...]``, positive, in units of the weight."""
        return self.log_step.clamp_min(_SMALLEST_LOG_STEP).exp()

    @torch.no_grad()
    def reset(self, weight: Tensor) -> None:
        """Start the steps anew from ``weight`` (least squared error in each channel).

        A channel of zeros, which has no error to go by, takes the mean of the other channels' steps, or where all are
        zero a step for weights of the size that torch starts layers with, ``1 / sqrt(fan in)``.
        """
        step = initial_step(weight, self.bits, signed=True, per_channel=True)
        zero = weight.flatten(1).abs().amax(dim=1).eq(0).reshape(step.shape)
        usual = 1.0 / math.sqrt(weight[0].numel()) / integer_range(self.bits, signed=True)[1]
        fallback = step[~zero].mean() if not zero.all() else step.new_tensor(usual)
        self.log_step.copy_(torch.where(zero, fallback, step).log())

    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantized ``weight``, same shape."""
        return lsq_quantize(weight, self.step, self.bits, signed=True)

    def extra_repr(self) -> str:
        """What ``repr`` shows of it."""
        return f"bits={self.bits}, per output channel"


class LSQActivationQuantizer(nn.Module):
    """LSQ with one learned step for the tensor, started from the first batch it sees in training mode.

    Until then every batch is quantized with a start of its own, so that a look at an untrained network leaves no trace
    in it. A batch of zeros starts nothing.

    Args:
        bits: width of the integers, 2 to 16.
        signed: whether inputs can be negative. After a ReLU they cannot, and the sign bit is worth having.

    The buffer ``started`` goes with the state dict, so a loaded quantizer keeps its step.
    """

    started: Tensor

    def __init__(self, bits: int, *, signed: bool) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.log_step = nn.Parameter(torch.zeros(()))
        self.register_buffer("started", torch.tensor(False))
        # Mirrors the buffer: reading that in forward would synchronise with the GPU at every call.
        self._started = False

    @property
    def step(self) -> Tensor:
        """The step, a positive scalar in units of the activation."""
        return self.log_step.clamp_min(_SMALLEST_LOG_STEP).exp()

    def reset(self) -> None:
        """Forget the step; the next batch starts it anew."""
        self.started.fill_(False)
        self._started = False

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._started = bool(self.started)

    @torch.no_grad()
    def _start(self, step: Tensor) -> None:
        self.log_step.copy_(step.log())
        self.started.fill_(True)
        self._started = True

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantized ``x`` (``[N, ...]``), same shape; the gradient scale counts the elements of one sample."""
        if not self._started:
            if not x.any():
                return x
            step = initial_step(x, self.bits, signed=self.signed)
            if not self.training:
                return lsq_quantize(x, step, self.bits, signed=self.signed)
            self._start(step)
        return lsq_quantize(x, self.step, self.bits, signed=self.signed, elements=max(1, x[0].numel()))

    def extra_repr(self) -> str:
        """What ``repr`` shows of it."""
        return f"bits={self.bits}, {'signed' if self.signed else 'unsigned'}"
