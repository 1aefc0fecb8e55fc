"""Quantization noise: additive noise that stands for rounding error during a search.

Rounding to a step ``D`` is replaced by ``x + D e`` with ``e`` uniform on [-1/2, 1/2], the error of an ideal uniform
quantizer (variance 1/12), or Gaussian with standard deviation 1/2, as in Shvetsov et al., "QuantNAS for Super
Resolution", IEEE Access 12 (2024). ``D_b(x) = (max x - min x) / (2^b - 1)`` for ``b`` bits, over the whole tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from quantnas_ext.quantization.precision import FULL_PRECISION_BITS

NoiseDistribution = Literal["uniform", "gaussian"]
NoiseMixture = Literal["rss", "power"]

NOISE_VARIANCE: dict[str, float] = {"uniform": 1.0 / 12.0, "gaussian": 1.0 / 4.0}


def relative_steps(bits: Sequence[int]) -> Tensor:
    """Steps in units of the tensor's range: ``1 / (2^b - 1)`` for each width, 0 at 32 bits (not quantized)."""
    return torch.tensor([0.0 if b == FULL_PRECISION_BITS else 1.0 / (2**b - 1) for b in bits])


def is_dense(x: Tensor) -> bool:
    """Whether a tensor fills its memory without gaps, in the usual order or with the channels last."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def flattened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one shape as vectors with the same order of elements: that of memory, where they share it.

    Args:
        tensors: without gradients. Dense ones of the same strides become views, whichever their memory format.
    """
    first = tensors[0]
    if is_dense(first) and all(tensor.stride() == first.stride() for tensor in tensors[1:]):
        return tuple(tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors)
    return tuple(tensor.flatten() for tensor in tensors)


def as_factor(mask: Tensor) -> Tensor:
    """A boolean tensor as zeros and ones: products with bytes are several times faster on a CPU than with booleans."""
    return mask.view(torch.uint8)


def value_range(x: Tensor) -> Tensor:
    """``max x - min x`` over the whole tensor: a float32 scalar, or a double for doubles, without gradient."""
    (flat,) = flattened(x.detach() if x.requires_grad else x)  # aminmax would copy what has its channels last
    low, high = torch.aminmax(flat)
    span = high - low
    return span if span.dtype.itemsize >= 4 else span.float()


def in_two_parts(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``x`` as the sum of two tensors of a dtype with fewer digits, the second of which carries no gradient.

    In bfloat16 the noise of 8 bits is no larger than the distance from one number to the next, so that most numbers
    would round to what they are without it. What is linear computes both parts instead.

    Args:
        x: any shape, of a wider dtype.
        dtype: for example bfloat16.
    """
    high = x.to(dtype)
    return high, (x.detach() - high.detach()).to(dtype)


@contextmanager
def kept_for_training() -> Iterator[None]:
    """Within it tensors are made that outlive ``torch.inference_mode``: what that marks can never be trained with."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def first_order_only() -> None:
    """Refuse a backward pass that is to be differentiated again, as second-order methods would get wrong gradients.

    Raises:
        RuntimeError: within the backward pass of a call with ``create_graph=True``.
    """
    if torch.is_grad_enabled():  # autograd runs first-order passes without
        raise RuntimeError(
            "layers with quantization noise have first-order gradients only: leave out create_graph=True"
        )


def safe_sqrt(squares: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero instead of infinite (all weight on 32 bits would give NaN).

    At zero it is 1e-18 instead: nothing to what it is a step of.
    """
    return squares.clamp_min(1e-36).sqrt()


def mixture_noise_scale(probabilities: Tensor, steps: Tensor, mixture: NoiseMixture = "rss") -> Tensor:
    """Step of the single noise that stands for a mixture of precisions.

    ``rss``: ``sqrt(sum_b p_b^2 D_b^2)``, the standard deviation of ``sum_b p_b D_b e_b`` with independent draws, as one
    gets from mixing separately noised tensors. ``power``: ``sqrt(sum_b p_b D_b^2)``, the expected error power of one
    precision drawn at random, which does not shrink in the middle of the simplex.

    Args:
        probabilities: ``[..., B]``, one for each precision.
        steps: ``[..., B]``, step of each precision in any unit; 0 for 32 bits.
        mixture: ``"rss"`` or ``"power"``.

    Returns:
        ``[...]``, float32, in the unit of ``steps``, differentiable in ``probabilities``; its gradient at zero is zero.
    """
    probabilities, steps = probabilities.float(), steps.float()
    weights = probabilities.square() if mixture == "rss" else probabilities
    return safe_sqrt((weights * steps.square()).sum(dim=-1))


def unit_noise_(x: Tensor, distribution: NoiseDistribution, generator: torch.Generator | None = None) -> Tensor:
    """Fill ``x`` with fresh independent noise of step 1, in place.

    Args:
        x: any shape.
        distribution: ``"uniform"`` on [-1/2, 1/2] or ``"gaussian"`` with standard deviation 1/2.
        generator: on the device of ``x``; torch's global one by default.
    """
    if distribution == "uniform":
        return x.uniform_(-0.5, 0.5, generator=generator)
    return x.normal_(0.0, 0.5, generator=generator)


def add_noise(x: Tensor, scale: Tensor, noise: Tensor, *, masked: bool = False, in_place: bool = False) -> Tensor:
    """``x + scale * noise``.

    Args:
        x: any shape.
        scale: scalar step in the units of ``x`` (see ``mixture_noise_scale`` and ``value_range``).
        noise: unit noise, shape of ``x``.
        masked: leave zeros as they are. A quantizer does too, and behind a ReLU half of all values are zero.
        in_place: whether ``x`` itself becomes the result.

    Returns:
        Same shape and dtype as ``x``, but float32 where that has fewer digits. Gradients flow to ``x`` and ``scale``.
    """
    if masked:
        noise = noise * as_factor(x != 0)
    if x.dtype.itemsize < 4:
        x = x.float()
    if noise.dtype != x.dtype:
        noise = noise.to(x.dtype)
    if scale.dtype != x.dtype:
        scale = scale.to(x.dtype)
    return x.addcmul_(noise, scale) if in_place else torch.addcmul(x, noise, scale)
