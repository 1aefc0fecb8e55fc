"""What everything else asks of a quantizer, and the quantizers by name. A new one is one file.

That file has one class, of weights or of activations, under a decorator that makes it known by name to layers, spaces,
configurations and architecture files. The base classes answer for a quantizer that is ready from the start and learns
what parameters it has; what is otherwise is overridden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from torch import Tensor, nn

from quantnas_ext.arguments import Registry
from quantnas_ext.errors import InputError, shown
from quantnas_ext.quantization.precision import FULL_PRECISION_BITS, Precision


class Quantizer(nn.Module):
    """A module that maps values to fake-quantized ones of the same shape, with a gradient.

    A buffer named ``started`` of one element, where there is one, says whether it has seen what it starts from; files
    of weights whose quantizers have all not started count as those of a network whose quantization has not begun.

    Args:
        bits: width of the integers, 2 to 16.
        signed: whether they can be negative.

    Raises:
        InputError: for bits or signs that the class does not have.
    """

    kind: ClassVar[str]
    """The name that it is registered under."""

    role: ClassVar[str]
    """What it quantizes, in words."""

    granularity: ClassVar[Literal["tensor", "output channel"]]
    """What has one step: the whole tensor, or each output channel of a weight (the first dimension)."""

    learned: ClassVar[bool] = True
    """Whether steps are stored with a network, as learned ones are, and not fixed or computed."""

    widths: ClassVar[tuple[int, ...] | None] = None
    """The bits that it can have; None for all."""

    takes_signed: ClassVar[bool] = True
    """Whether what it quantizes may be negative."""

    def __init__(self, bits: int, *, signed: bool) -> None:
        super().__init__()
        self.check(bits, signed=signed)
        self.bits = bits
        self.signed = signed

    @classmethod
    def check(cls, bits: int, *, signed: bool) -> None:
        """Refuse bits and signs that there is no quantizer for; 32 bits need none.

        Raises:
            InputError: saying which there are.
        """
        if signed and not cls.takes_signed:
            raise InputError(
                f"{cls.role} quantizer {cls.kind} is for inputs that are never negative, as behind a ReLU; "
                f"use signed=False there, or {cls.role} quantizer {DEFAULT}"
            )
        if bits != FULL_PRECISION_BITS and cls.widths is not None and bits not in cls.widths:
            raise InputError(
                f"{cls.role} quantizer {cls.kind} has no step for {cls.role}s of {bits} bits; use one of "
                f"{', '.join(map(str, cls.widths))} bits, or {FULL_PRECISION_BITS} for full precision, or "
                f"{cls.role} quantizer {DEFAULT}"
            )

    @classmethod
    def stored_numbers(cls, bits: int, channels: int) -> int:
        """How many numbers of 32 bits are stored with a network beside the weights, as its size in bytes counts them.

        Args:
            bits: width of the integers.
            channels: output channels of the layer.
        """
        if not cls.learned:
            return 0
        return channels if cls.granularity == "output channel" else 1

    def step_parameters(self) -> list[nn.Parameter]:
        """What is learned as steps are: faster than weights and without weight decay (``give_steps_a_group``)."""
        return list(self.parameters())

    def step_for(self, x: Tensor) -> Tensor | None:
        """The step that ``x`` is quantized with; None where its values are no multiples of one.

        A positive scalar, or ``[C_out, 1, ...]`` for each output channel of a weight, in units of ``x``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say its step; define step_for(x), if only as None")

    def extra_repr(self) -> str:
        """What ``repr`` shows of it."""
        return f"bits={self.bits}, {'signed' if self.signed else 'unsigned'}"


class WeightQuantizer(Quantizer):
    """A quantizer of a layer's weight, ``[C_out, ...]``; ``forward(weight)`` quantizes it.

    Args:
        bits: width of the integers, 2 to 16.
        weight_shape: shape of the weight, output channels first.
    """

    role = "weight"
    granularity = "output channel"

    def __init__(self, bits: int, weight_shape: Sequence[int]) -> None:
        super().__init__(bits, signed=True)

    def reset(self, weight: Tensor) -> None:
        """Start anew from a weight, as after it was loaded or trained in full precision."""

    def mend(self, weight: Tensor) -> None:
        """Start anew what is far off for a weight, as before a training from trained weights."""

    @classmethod
    def implied_bits(cls, state: Mapping[str, Tensor], weight: Tensor, stated: int) -> int:
        """The bits that a state dict of the quantizer of a weight speaks for, where a file does not name them.

        Args:
            state: of the quantizer, its own names.
            weight: that it belongs to.
            stated: the answer where nothing speaks against it.
        """
        return stated


class ActivationQuantizer(Quantizer):
    """A quantizer of a layer's input, ``[N, ...]``, with one step for the tensor; ``forward(x)`` quantizes it.

    One that finds its step from batches calls ``observe`` in ``forward`` in training mode, and says with ``observing``,
    ``observed`` and ``take_over`` what several processes have to agree on (``agree_on_steps``). In evaluation mode
    nothing of it may change.

    Args:
        bits: width of the integers, 2 to 16.
        signed: whether inputs can be negative. After a ReLU they cannot, and the sign bit is worth having.
    """

    role = "activation"
    granularity = "tensor"

    pointwise: ClassVar[bool] = True
    """Whether a value is quantized alike whatever stands around it, so that images can be enlarged tile by tile."""

    batches = 0
    """Batches seen in training mode."""

    agreed = 0
    """How many there were when all processes last agreed."""

    observing = False
    """Whether batches in training mode can still change it other than by gradients."""

    @property
    def ready(self) -> bool:
        """Whether it has seen what it starts from, if anything; before that each input may have a start of its own."""
        return bool(getattr(self, "started", True))

    @property
    def disagreeing(self) -> bool:
        """Whether processes may have seen what they have not agreed on, or will."""
        return self.observing or self.batches > self.agreed

    def reset(self) -> None:
        """Forget what was seen; the next batches start it anew."""

    def watch(self) -> None:
        """Make ready for a training whose data may be others than those that it was started on."""

    def end_observation(self) -> None:
        """Leave it to its gradient from now on."""

    def observe(self, x: Tensor) -> None:
        """See one more batch; in calibration it is called in place of training mode."""

    def fit(self) -> None:
        """Bring the step up to date with all that was seen."""

    def observed(self) -> tuple[Tensor, Tensor]:
        """What processes agree on: numbers of which the mean is taken (any shape), and a scalar, of which the largest.

        In float32, on the device of the quantizer.
        """
        raise NotImplementedError(f"{type(self).__name__} observes batches; define observed() and take_over(...)")

    def take_over(self, mean: Tensor, largest: Tensor, batches: int) -> None:
        """Go on from what all processes have seen together: ``observed`` of all, and the largest count of batches."""


DEFAULT = "lsq"
"""Name of the quantizers where no other is named."""

WEIGHT_QUANTIZERS: Registry[type[WeightQuantizer]] = Registry("weight quantizer")
ACTIVATION_QUANTIZERS: Registry[type[ActivationQuantizer]] = Registry("activation quantizer")

_Class = TypeVar("_Class", bound=type[Quantizer])


def register_quantizer(name: str) -> Callable[[_Class], _Class]:
    """Decorator that makes a subclass of ``WeightQuantizer`` or ``ActivationQuantizer`` known under ``name``.

    Raises:
        InputError: when the name is taken or cannot be one, or for what is no such class.
    """

    def register(quantizer: _Class) -> _Class:
        registries: dict[type[Quantizer], Registry[Any]]
        registries = {WeightQuantizer: WEIGHT_QUANTIZERS, ActivationQuantizer: ACTIVATION_QUANTIZERS}
        for base, registry in registries.items():
            if isinstance(quantizer, type) and issubclass(quantizer, base):
                registry.register(name)(quantizer)
                quantizer.kind = name
                return quantizer
        raise InputError(
            f"quantizer {name!r} is {shown(quantizer)}; derive it from WeightQuantizer or ActivationQuantizer"
        )

    return register


def numbers_stored(weight_kind: str, activation_kind: str, precision: Precision, channels: int) -> int:
    """How many numbers of 32 bits the quantizers of a layer of ``channels`` output channels store at a precision."""
    numbers = 0
    if precision.weight_bits != FULL_PRECISION_BITS:
        numbers += WEIGHT_QUANTIZERS[weight_kind].stored_numbers(precision.weight_bits, channels)
    if precision.activation_bits != FULL_PRECISION_BITS:
        numbers += ACTIVATION_QUANTIZERS[activation_kind].stored_numbers(precision.activation_bits, channels)
    return numbers


def activation_quantizers(model: nn.Module) -> Iterator[ActivationQuantizer]:
    """Every activation quantizer of a model."""
    return (module for module in model.modules() if isinstance(module, ActivationQuantizer))
