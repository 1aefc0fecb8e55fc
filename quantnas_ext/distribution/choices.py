"""Which choices of a model space there are, and which of them matter only once another has been made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nni.mutable import Categorical, CategoricalMultiple
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule
from torch import nn

from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.quantization import Precision

Context = tuple[str, Any]
"""A choice made: (label, value)."""


@dataclass(frozen=True)
class Choice:
    """One labelled choice.

    Attributes:
        label: NNI label.
        values: what can be chosen, in NNI's order.
        parent: the choice ``(label, value)`` under which this one has a meaning; None for a choice that always has one
            (also for a choice that several candidates share).
        multiple: how many values are chosen together, for NNI's input choices; None where it is exactly one value.
        owners: for a choice that several candidates share and that has no meaning without one of them, these
            candidates; empty for all others.
    """

    label: str
    values: tuple[Any, ...]
    parent: Context | None
    multiple: int | None = None
    owners: tuple[Context, ...] = ()

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
        try:
            precision = Precision.parse(value)
            return next(known for known in self.values if Precision.parse(known) == precision)
        except (InputError, StopIteration):
            raise unknown_name(f"value of choice {self.label!r}", value, self.values) from None


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
        contexts: dict[str, dict[Context | None, None]] = {}
        _collect(space, None, contexts)
        # A label seen under several candidates belongs to none of them: it is chosen on its own.
        parents = {label: next(iter(seen)) if len(seen) == 1 else None for label, seen in contexts.items()}
        owners = {
            label: tuple(filter(None, seen)) for label, seen in contexts.items() if len(seen) > 1 and None not in seen
        }
        unordered = {}
        for label, mutable in space.simplify().items():
            if not isinstance(mutable, (Categorical, CategoricalMultiple)):
                raise InputError(
                    f"choice {label!r} is a {type(mutable).__name__}; a differentiable search needs nni.choice, "
                    "LayerChoice or InputChoice"
                )
            multiple = (mutable.n_chosen or 1) if isinstance(mutable, CategoricalMultiple) else None
            unordered[str(label)] = Choice(
                str(label), tuple(mutable.values), parents.get(label), multiple, owners.get(label, ())
            )
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


def _collect(module: nn.Module, context: Context | None, found: dict[str, dict[Context | None, None]]) -> None:
    """Note under which candidate every label below ``module`` (and on it) stands."""
    if isinstance(module, MutableModule):
        for mutable in module.mutables:
            for label in mutable.simplify():
                found.setdefault(str(label), {})[context] = None
    if isinstance(module, LayerChoice):
        for name in module.names:
            # str: NNI's labels are a class of their own, which checkpoints and files should not hold.
            _collect(module[name], (str(module.label), name), found)
    else:
        for child in module.children():
            _collect(child, context, found)
