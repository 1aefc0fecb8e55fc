"""Which choices of a model space there are, and which of them matter only once another has been made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nni.mutable import Categorical, CategoricalMultiple
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule
from torch import nn

from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.nn.mutable_layers import searched_precision
from quantnas_ext.quantization import Precision

Context = tuple[str, Any]
"""A choice made: (label, value)."""

Kind = Literal["operation", "precision", "other"]


@dataclass(frozen=True)
class Choice:
    """One labelled choice.

    Attributes:
        label: NNI label.
        values: what can be chosen, in NNI's order.
        places: the candidates ``(label, value)`` in which it stands, None for a place outside of all.
        kind: what it decides, told by where it stands: ``"operation"`` of a layer choice, ``"precision"`` (the bits of
            a quantized layer), or anything else.
        multiple: how many values are chosen together, for NNI's input choices; None where it is exactly one value.
    """

    label: str
    values: tuple[Any, ...]
    places: tuple[Context | None, ...] = (None,)
    kind: Kind = "other"
    multiple: int | None = None

    @property
    def parent(self) -> Context | None:
        """The choice under which this one has a meaning; None for one that several candidates share or none holds."""
        return self.places[0] if len(self.places) == 1 else None

    @property
    def owners(self) -> tuple[Context, ...]:
        """The candidates that share a choice which has no meaning without one of them; empty for all others."""
        shared = len(self.places) > 1 and None not in self.places
        return tuple(filter(None, self.places)) if shared else ()

    def best_subset(self, probabilities: Sequence[float]) -> tuple[float, list[Any]]:
        """Probability mass and values, in their order, of the likeliest values that are chosen together."""
        ranked = sorted(range(len(self.values)), key=lambda index: -probabilities[index])
        chosen = sorted(ranked[: self.multiple])
        return sum(probabilities[index] for index in chosen), [self.values[index] for index in chosen]

    def canonical(self, value: Any) -> Any:
        """The value as it stands among ``values``; a precision may be given in any form that ``Precision.parse`` reads.

        Raises:
            InputError: when it is not among them.
        """
        if self.multiple is not None:
            if isinstance(value, (list, tuple)) and value and all(part in self.values for part in value):
                return list(value)
            raise InputError(
                f"choice {self.label!r} is {value!r}; give a list of values out of {', '.join(map(str, self.values))}"
            )
        if value in self.values:
            return self.values[self.values.index(value)]
        if self.kind == "precision":
            with contextlib.suppress(InputError, StopIteration):
                precision = Precision.parse(value)
                return next(known for known in self.values if Precision.parse(known) == precision)
        raise unknown_name(f"value of choice {self.label!r}", value, self.values)


@dataclass(frozen=True)
class ChoiceTree:
    """All choices of a model space; parents come before their children."""

    choices: tuple[Choice, ...]

    @classmethod
    def of(cls, space: ModelSpace) -> ChoiceTree:
        """Read the choices of a space or of the supernet made from it.

        Raises:
            InputError: when the space has nothing to choose, or a choice that is not among finitely many values.
        """
        places: dict[str, dict[Context | None, None]] = {}
        kinds: dict[str, Kind] = {}
        _collect(space, None, places, kinds)
        unordered = {}
        for label, mutable in space.simplify().items():
            if not isinstance(mutable, (Categorical, CategoricalMultiple)):
                raise InputError(
                    f"choice {label!r} is a {type(mutable).__name__}; a differentiable search needs nni.choice, "
                    "LayerChoice or InputChoice"
                )
            multiple = (mutable.n_chosen or 1) if isinstance(mutable, CategoricalMultiple) else None
            where, kind = tuple(places.get(label, (None,))), kinds.get(label, "other")
            unordered[str(label)] = Choice(str(label), tuple(mutable.values), where, kind, multiple)
        if not unordered:
            raise InputError("the model space has no choices, so there is nothing to search")
        return cls(tuple(sorted(unordered.values(), key=lambda choice: _depth(choice, unordered))))

    def __iter__(self) -> Iterator[Choice]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    def children(self, label: str, value: Any) -> list[Choice]:
        """Choices that have a meaning once ``label`` takes ``value``."""
        return [choice for choice in self.choices if choice.parent == (label, value)]

    def nesting(self) -> int:
        """The longest chain of choices that depend on one another, less one (1: precisions below operations)."""
        choices = {choice.label: choice for choice in self.choices}
        return max(_depth(choice, choices) for choice in self.choices)

    def roots(self) -> list[Choice]:
        """Choices without a parent; each stands for one block."""
        return [choice for choice in self.choices if choice.parent is None]

    def complete(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a sample that decides an architecture: every choice that has a meaning under it, and no other.

        Args:
            sample: label to value; other labels than those of the space are ignored.

        Raises:
            InputError: when such a choice is missing or has an unknown value.
        """
        choices = {choice.label: choice for choice in self.choices}
        return {
            label: choice.canonical(sample[label])
            for label, choice in choices.items()
            if _has_meaning(choice, sample, choices, frozenset())
        }


def _has_meaning(
    choice: Choice, sample: Mapping[str, Any], choices: Mapping[str, Choice], below: frozenset[str]
) -> bool:
    """Whether a sample, which has to have a value for it then, makes the choices above a choice."""
    above = choice.owners if choice.parent is None else (choice.parent,)
    reached = not above or any(
        label not in below
        and _has_meaning(choices[label], sample, choices, below | {choice.label})
        and choices[label].canonical(sample[label]) == value
        for label, value in above
    )
    if reached and choice.label not in sample:
        raise InputError(
            f"the sample has no value for choice {choice.label!r}; give one of {', '.join(map(str, choice.values))}"
        )
    return reached


def _depth(choice: Choice, choices: Mapping[str, Choice]) -> int:
    return 0 if choice.parent is None else 1 + _depth(choices[choice.parent[0]], choices)


def _collect(
    module: nn.Module, context: Context | None, places: dict[str, dict[Context | None, None]], kinds: dict[str, Kind]
) -> None:
    """Note under which candidate every label below ``module`` (and on it) stands, and what it decides there."""
    if isinstance(module, MutableModule):
        for mutable in module.mutables:
            for label in mutable.simplify():
                places.setdefault(str(label), {})[context] = None
    precision = searched_precision(module)
    if isinstance(precision, Categorical):
        kinds[str(precision.label)] = "precision"
    if isinstance(module, LayerChoice):
        # str: NNI's labels are a class of their own, which checkpoints and files should not hold.
        kinds[str(module.label)] = "operation"
        for name in module.names:
            _collect(module[name], (str(module.label), name), places, kinds)
    else:
        for child in module.children():
            _collect(child, context, places, kinds)
