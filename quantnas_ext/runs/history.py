"""The course of a search: as a JSON file that plots and reports are made from, and for TensorBoard."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.files.json_values import json_values
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.search.loop.epoch_record import EpochRecord


class SearchHistory:
    """Collects the records of all epochs, and writes ``history.json`` anew, as a whole, after every one."""

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


class SearchRecorder:
    """Writes every record of a search to its run folder: ``AccelerateEvaluator(..., on_epoch=recorder)``.

    Nothing is opened before the first record, which only the main process gets.

    Attributes:
        history: of the search so far.
    """

    def __init__(self, run: RunFolder, tree: ChoiceTree) -> None:
        self.history = SearchHistory(run.history, tree)
        self._folder = run.tensorboard
        self._board: SummaryWriter | None = None

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()

    def __call__(self, record: EpochRecord) -> None:
        """Write a record."""
        self._board = board = self._board or SummaryWriter(str(self._folder), purge_step=0)
        self.history.add(record)
        for label, probabilities in record.probabilities.items():
            for value, probability in zip(self.history.labels[label]["values"], probabilities, strict=True):
                board.add_scalar(f"probability/{label}/{value}", probability, record.epoch)
        scalars = {name: getattr(record, name) for name in ("entropy", "train_loss", "val_loss", "settled_loss")}
        scalars |= record.expected_costs | {f"multiplier_{name}": value for name, value in record.multipliers.items()}
        for name, scalar in scalars.items():
            if scalar is not None:
                board.add_scalar(f"search/{name}", scalar, record.epoch)
        board.flush()
