"""Reading the history of a search: joint candidate probabilities of every block, epoch by epoch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantnas_ext.errors import InputError
from quantnas_ext.quantization.precision import Precision

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Candidate:
    """One (operation, precision) pair of a block.

    Attributes:
        operation: name of the operation.
        precisions: its precision; empty for an operation without one (an identity), several where the operation's
            layers choose separately.
    """

    operation: str
    precisions: tuple[Precision, ...]

    @property
    def precision(self) -> Precision | None:
        """The precision that stands for the candidate in colours: the largest of its layers."""
        return max(self.precisions, default=None)


@dataclass(frozen=True)
class BlockHistory:
    """How the joint distribution of one block moved.

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
        """Index of the joint arg max at the end of the search."""
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


def block_histories(history: Mapping[str, Any]) -> list[BlockHistory]:
    """The joint distribution p(operation) * p(bits | operation) of every block in every epoch.

    Args:
        history: ``{"labels": {label: {"values", "parent"}}, "epochs": [{"probabilities": {label: [...]}}, ...]}``.
            A label without a parent is a block; a label whose parent is ``[block, operation]`` holds the precisions of
            that operation.

    Raises:
        InputError: when a label's parent or probabilities are missing, or the numbers are no distribution.
    """
    epoch_numbers(history)  # there are epochs
    labels = _required(history, "labels", "the history")
    children: dict[tuple[str, Any], list[str]] = {}
    for label, description in labels.items():
        parent = _required(description, "parent", f"label {label!r} of the history")
        if parent is None:
            continue
        block, operation = parent
        if block not in labels or operation not in labels[block]["values"]:
            raise InputError(f"label {label!r} of the history belongs to {block!r}, {operation!r}, which is not in it")
        children.setdefault((block, operation), []).append(label)
    tables = {label: _probabilities(history, label, len(labels[label]["values"])) for label in labels}
    return [
        _join(block, description["values"], labels, children, tables)
        for block, description in labels.items()
        if description["parent"] is None
    ]


def _join(
    block: str,
    operations: Sequence[str],
    labels: Mapping[str, Any],
    children: Mapping[tuple[str, Any], list[str]],
    tables: Mapping[str, np.ndarray],
) -> BlockHistory:
    """Multiply the distribution over a block's operations with those over each operation's precisions."""
    candidates: list[Candidate] = []
    columns: list[np.ndarray] = []
    for i, operation in enumerate(operations):
        below = children.get((block, operation), [])
        for picks in itertools.product(*(range(len(labels[label]["values"])) for label in below)):
            pairs = list(zip(below, picks, strict=True))
            precisions = tuple(Precision.parse(labels[label]["values"][j]) for label, j in pairs)
            candidates.append(Candidate(str(operation), precisions))
            columns.append(np.prod([tables[block][:, i], *(tables[label][:, j] for label, j in pairs)], axis=0))
    return BlockHistory(block, tuple(candidates), np.stack(columns, axis=1))


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
