"""Reading the history of a search: probabilities of the candidates of every block, epoch by epoch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantnas_ext.errors import InputError
from quantnas_ext.reporting.candidates import Candidate

MOST_CANDIDATES = 256
"""Of a block whose distribution is looked at as a whole."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class BlockProbabilities:
    """How the distribution over the candidates of one block moved.

    Attributes:
        block: label of the block.
        candidates: its K candidates.
        probabilities: [epochs, K], each row sums to 1.
    """

    block: str
    candidates: tuple[Candidate, ...]
    probabilities: np.ndarray

    @property
    def chosen(self) -> int:
        """Index of the arg max at the end of the search."""
        return int(self.probabilities[-1].argmax())


def epoch_numbers(history: Mapping[str, Any]) -> np.ndarray:
    """The epochs of the history's entries, [epochs].

    Raises:
        InputError: when the history has no entries or their epochs do not increase.
    """
    entries = _required(history, "epochs", "the history")
    if not entries:
        raise InputError("the history of the search has no epochs; a search writes one entry before it starts")
    epochs = np.array([_required(entry, "epoch", f"entry {i} of the history") for i, entry in enumerate(entries)])
    if np.any(np.diff(epochs) <= 0):
        raise InputError(f"the epochs of the history do not increase: {epochs.tolist()}; give each entry its own")
    return epochs


def series(history: Mapping[str, Any], key: str) -> np.ndarray:
    """One number an epoch, [epochs], with NaN where the history has none.

    Raises:
        InputError: when an entry lacks the key.
    """
    values = [_required(entry, key, f"epoch {entry.get('epoch')} of the history") for entry in history["epochs"]]
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def block_probabilities(history: Mapping[str, Any]) -> list[BlockProbabilities]:
    """The joint distribution of every block in every epoch: ``p(operation) p(what it holds | operation)``, and so on.

    A block of more than ``MOST_CANDIDATES`` ways to make its choices is shown choice by choice: each of them has an
    entry of its own, given that what holds it is chosen.

    Args:
        history: ``{"labels": {label: {"values", "parent", "kind"}}, "epochs": [{"probabilities": {label: [...]}}]}``. A
            label without a parent is a block; one whose parent is ``[label, value]`` is chosen once that value is. The
            kind is that of ``Choice``; without it, as in older files, a label with a parent is a precision.

    Raises:
        InputError: when a label's parent or probabilities are missing, or the numbers are no distribution.
    """
    choices = _Choices(history)
    tables = {label: _probabilities(history, label, len(values)) for label, values in choices.values.items()}
    return [
        BlockProbabilities(label, tuple(candidates), np.stack(columns, axis=1))
        for root in choices.roots
        for label in choices.shown(root)
        for candidates, columns in [zip(*choices.joint(label, tables), strict=True)]
    ]


def most_entropy(history: Mapping[str, Any]) -> float:
    """The entropy in nats, summed over the blocks, of a search in which all candidates of every block are alike.

    Raises:
        InputError: when a label's parent is missing.
    """
    choices = _Choices(history)
    return sum(math.log(choices.count(root)) for root in choices.roots)


class _Choices:
    """The choices that a history is of."""

    def __init__(self, history: Mapping[str, Any]) -> None:
        epoch_numbers(history)  # there are epochs
        labels = _required(history, "labels", "the history")
        self.values: dict[str, list[Any]] = {}
        self.precisions: set[str] = set()
        self.roots: list[str] = []
        self._below: dict[tuple[str, Any], list[str]] = {}
        for label, description in labels.items():
            parent = _required(description, "parent", f"label {label!r} of the history")
            self.values[label] = description["values"]
            if description.get("kind", "operation" if parent is None else "precision") == "precision":
                self.precisions.add(label)
            if parent is None:
                self.roots.append(label)
                continue
            block, value = parent
            if block not in labels or value not in labels[block]["values"]:
                raise InputError(f"label {label!r} of the history belongs to {block!r}, {value!r}, which is not in it")
            self._below.setdefault((block, value), []).append(label)

    def below(self, label: str) -> list[list[str]]:
        """For every value of a label the labels that are chosen once it is."""
        return [self._below.get((label, value), []) for value in self.values[label]]

    def count(self, label: str) -> int:
        """In how many ways a label and all below it can be chosen."""
        return sum(math.prod(map(self.count, below)) for below in self.below(label))

    def shown(self, label: str) -> list[str]:
        """The labels with a distribution of their own: a block's, and those below it where it has too many ways."""
        if self.count(label) <= MOST_CANDIDATES:
            return [label]
        return [label, *(shown for below in self.below(label) for inner in below for shown in self.shown(inner))]

    def joint(self, label: str, tables: Mapping[str, np.ndarray]) -> list[tuple[Candidate, np.ndarray]]:
        """The candidates at and below a label, each with its probabilities [epochs]; without those below if too many.

        ``tables`` has the probabilities of every label, [epochs, values].
        """
        if label in self.precisions:
            return [(Candidate.at(value), tables[label][:, i]) for i, value in enumerate(self.values[label])]
        found = []
        whole = self.count(label) <= MOST_CANDIDATES
        for i, (value, below) in enumerate(zip(self.values[label], self.below(label), strict=True)):
            for picked in itertools.product(*(self.joint(inner, tables) for inner in (below if whole else []))):
                candidate = Candidate.of(value, [inner for inner, _ in picked])
                columns = [tables[label][:, i], *(column for _, column in picked)]
                found.append((candidate, np.prod(columns, axis=0)))
        return found


def _probabilities(history: Mapping[str, Any], label: str, count: int) -> np.ndarray:
    """The probabilities of one label, [epochs, count], checked."""
    rows = []
    for entry in history["epochs"]:
        where = f"epoch {entry['epoch']} of the history"
        row = _required(_required(entry, "probabilities", where), label, f"the probabilities in {where}")
        if len(row) != count or not math.isclose(sum(row), 1, abs_tol=_SUM_TOLERANCE) or min(row) < 0:
            raise InputError(f"the probabilities of {label!r} in {where} are not {count} numbers that sum to 1")
        rows.append(row)
    return np.array(rows, dtype=float)


def _required(mapping: Mapping[str, Any], key: str, where: str) -> Any:
    """The value of a key that must be there."""
    if key not in mapping:
        raise InputError(f"{where} has no {key!r}; plot the unchanged history.json of a search")
    return mapping[key]
