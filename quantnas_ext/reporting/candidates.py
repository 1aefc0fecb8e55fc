"""What can stand in a block of a network: the values chosen for it, from the outside in, and their precisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantnas_ext.errors import InputError
from quantnas_ext.quantization.precision import Precision

if TYPE_CHECKING:  # it imports NNI, which plots and tables do not need
    from quantnas_ext.distribution.choices import Choice, ChoiceTree


@dataclass(frozen=True)
class Candidate:
    """One way to make all choices of a block.

    Attributes:
        operation: what is chosen, such as ``conv_3x3``; with choices inside it ``x / a``, and ``x / a + b`` where two
            stand beside each other in it; empty for a block that chooses a precision alone.
        precisions: those of its layers; empty for an operation without any (an identity), several where layers choose
            separately.
    """

    operation: str
    precisions: tuple[Precision, ...] = ()

    @property
    def precision(self) -> Precision | None:
        """The precision that stands for the candidate in colours: the largest of its layers."""
        return max(self.precisions, default=None)

    @classmethod
    def of(cls, value: Any, within: Iterable[Candidate]) -> Candidate:
        """A value together with what is chosen within it."""
        below = list(within)
        name = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        inner = " + ".join(candidate.operation for candidate in below if candidate.operation)
        precisions = tuple(precision for candidate in below for precision in candidate.precisions)
        return cls(f"{name} / {inner}" if inner else name, precisions)

    @classmethod
    def at(cls, precision: Any) -> Candidate:
        """A precision alone, in any form that ``Precision.parse`` reads."""
        return cls("", (Precision.parse(precision),))


def chosen_candidates(tree: ChoiceTree, choices: Mapping[str, Any]) -> dict[str, Candidate]:
    """What an architecture has in every block, by label; a precision that candidates share is part of each of them.

    Raises:
        InputError: when a choice is missing.
    """
    return {
        choice.label: _chosen(tree, choices, choice, frozenset())
        for choice in tree.roots()
        if not choice.owners or choice.label in choices
    }


def _chosen(tree: ChoiceTree, choices: Mapping[str, Any], choice: Choice, above: frozenset[str]) -> Candidate:
    """What is chosen at and below a choice, which stands within those of the labels ``above``."""
    if choice.label not in choices:
        raise InputError(f"the choices lack {choice.label!r}; give all choices of the architecture that is drawn")
    value, above = choices[choice.label], above | {choice.label}
    if choice.kind == "precision":
        return Candidate.at(value)
    within = [other for other in tree if (choice.label, value) in other.places and other.label not in above]
    return Candidate.of(value, [_chosen(tree, choices, other, above) for other in within])
