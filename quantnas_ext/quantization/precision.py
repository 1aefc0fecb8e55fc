"""How many bits a layer's weights and activations have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral

from quantnas_ext.errors import InputError, shown

FULL_PRECISION_BITS = 32
_MIXED = re.compile(r"w([0-9]{1,2})a([0-9]{1,2})")
_PLAIN = re.compile(r"[0-9]{1,2}")


@dataclass(frozen=True, order=True)
class Precision:
    """Bit-widths of one layer.

    Attributes:
        weight_bits: bits of a weight, 2 to 16, or 32 for "not quantized".
        activation_bits: bits of an input activation, 2 to 16, or 32 for "not quantized".

    Raises:
        InputError: for any other number of bits.
    """

    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        for role in ("weight", "activation"):
            bits = getattr(self, f"{role}_bits")
            whole = isinstance(bits, Integral) and not isinstance(bits, bool)
            if not whole or not (2 <= bits <= 16 or bits == FULL_PRECISION_BITS):
                raise InputError(
                    f"{shown(bits)} bits for {role}s are not possible; use 2 to 16 bits, or 32 for full precision"
                )
            object.__setattr__(self, f"{role}_bits", int(bits))

    @classmethod
    def parse(cls, value: Precision | int | str | Sequence[int]) -> Precision:
        """Read a precision from what configurations, choices and files hold.

        Args:
            value: ``8`` (weights and activations alike), ``"8"``, ``"w4a8"`` (4-bit weights, 8-bit activations), or a
                pair such as ``[4, 8]``.

        Raises:
            InputError: when the value has none of these forms or its bits are out of range.
        """
        if isinstance(value, Precision):
            return value
        if isinstance(value, Integral):  # NumPy's included
            return cls(value, value)  # type: ignore[arg-type]
        if isinstance(value, str):
            if _PLAIN.fullmatch(value):
                return cls(int(value), int(value))
            if match := _MIXED.fullmatch(value):
                return cls(int(match[1]), int(match[2]))
        elif isinstance(value, Sequence) and len(value) == 2 and all(isinstance(bits, Integral) for bits in value):
            return cls(*value)
        raise InputError(
            f"{shown(value)} is not a precision; write 8, 'w4a8' (4-bit weights, 8-bit activations) or [4, 8]"
        )

    def __str__(self) -> str:
        if self.weight_bits == self.activation_bits:
            return str(self.weight_bits)
        return f"w{self.weight_bits}a{self.activation_bits}"


def precision_choices(precisions: Iterable[Precision | int | str | Sequence[int]]) -> list[int] | list[str]:
    """The values that stand for precisions in an NNI choice and in files.

    NNI sorts the values of a choice and stores them as JSON, so they must be of one plain type: integers where weights
    and activations share their bits everywhere, strings such as ``"w4a8"`` otherwise. Duplicates are dropped.

    Raises:
        InputError: when the list is empty or holds something that is not a precision.
    """
    parsed = list(dict.fromkeys(Precision.parse(value) for value in precisions))
    if not parsed:
        raise InputError("the list of precisions is empty; give at least one, for example [4, 8]")
    if all(p.weight_bits == p.activation_bits for p in parsed):
        return [p.weight_bits for p in parsed]
    return [f"w{p.weight_bits}a{p.activation_bits}" for p in parsed]
