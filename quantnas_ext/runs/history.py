"""The course of a search, as a JSON file that plots and reports are made from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.files.json_values import json_values
from quantnas_ext.search.loop.settings import EpochRecord


class SearchHistory:
    """Collects the records of all epochs and keeps ``history.json`` up to date.

    Args:
        path: the file; written anew, as a whole, after every epoch.
        tree: the choices of the space.
    """

    def __init__(self, path: Path, tree: ChoiceTree) -> None:
        self.path = path
        self.labels: dict[str, dict[str, Any]] = {
            choice.label: {
                "values": list(choice.values),
                "parent": list(choice.parent) if choice.parent else None,
                "kind": choice.kind,
            }
            for choice in tree
        }
        self.records: list[EpochRecord] = []

    def add(self, record: EpochRecord) -> None:
        """Take in the record of an epoch and write the file."""
        self.records.append(record)
        with atomic_file(self.path) as temporary:
            temporary.write_text(json.dumps(json_values(self.to_dict()), indent=1, allow_nan=False), encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """``{"labels": {label: {"values", "parent", "kind"}}, "epochs": [record, ...]}``.

        A record holds ``epoch``, ``step``, ``probabilities`` by label, ``train_loss``, ``val_loss``, ``entropy`` in
        nats, ``entropy_weight``, ``settled_loss``, the expectation of every cost as ``expected_NAME``, and the
        multiplier of every budget as ``multiplier_NAME``.
        """
        epochs = []
        for record in self.records:
            entry = asdict(record)
            for name, value in entry.pop("expected_costs").items():
                entry[f"expected_{name}"] = value
            for name, value in entry.pop("multipliers").items():
                entry[f"multiplier_{name}"] = value
            epochs.append(entry)
        return {"labels": self.labels, "epochs": epochs}
