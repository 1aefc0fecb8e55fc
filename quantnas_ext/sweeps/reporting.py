"""What a trial tells NNI: figures of every epoch and, at its end, of what it has found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nni.runtime.env_vars import trial_env_vars
from nni.runtime.trial_command_channel import get_default_trial_command_channel

from quantnas_ext.files.atomic import write_text
from quantnas_ext.search.loop.epoch_record import EpochRecord

Figures = dict[str, float]
"""``default``, which NNI compares trials by, and others; plain finite numbers."""


class TrialChannel:
    """The line of a trial to NNI's server.

    ``nni.report_intermediate_result`` keeps its parameters and its count in globals, which the one-shot search inside
    of the trial has for itself.

    Attributes:
        job: NNI's id of the trial.
        parameters: what the tuner has chosen for it.
    """

    def __init__(self) -> None:
        self._channel = get_default_trial_command_channel()
        given = self._channel.receive_parameter()
        if given is None:
            raise RuntimeError("NNI's server gives this trial no parameters")
        self._id = given["parameter_id"]
        self.parameters: dict[str, Any] = given["parameters"]
        self.job: str = trial_env_vars.NNI_TRIAL_JOB_ID or ""
        self._sent = 0

    def intermediate(self, figures: Figures, sent: int) -> None:
        """Report figures of an epoch, unless ``sent``, those that an earlier start of this job has sent, has them."""
        if self._sent >= sent:
            self._channel.send_metric("PERIODICAL", self._id, self.job, self._sent, figures)
        self._sent += 1

    def final(self, figures: Figures) -> None:
        """Report what was found."""
        self._channel.send_metric("FINAL", self._id, self.job, 0, figures)


class EpochReports:
    """Makes figures of the epochs of a search, keeps them in its folder, and sends them on.

    A search that goes on shows all its epochs again: their figures are then those that were kept.

    Args:
        folder: of the search.
        send: called with the figures of every epoch from the first on.

    Attributes:
        told: epochs that have been sent, and are not sent again.
    """

    def __init__(self, folder: Path, send: Callable[[EpochRecord, Figures], None]) -> None:
        self._file = folder / "epochs.json"
        self.send = send
        self.told: set[int] = set()
        self._kept: dict[str, Figures] = {}
        self.take(folder)

    def take(self, folder: Path) -> None:
        """Take over the figures that were kept in a folder."""
        try:
            self._kept |= json.loads((folder / self._file.name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            pass

    def __call__(self, record: EpochRecord, psnr: Callable[[], float]) -> None:
        """See an epoch; a ``Watcher``."""
        if record.epoch == 0:
            return
        key = str(record.epoch)
        known = self._kept.get(key)
        self._kept[key] = {"default": known["default"] if known else psnr(), **epoch_figures(record)}
        write_text(self._file, json.dumps(self._kept))
        if record.epoch not in self.told:
            self.told.add(record.epoch)
            self.send(record, self._kept[key])


def epoch_figures(record: EpochRecord) -> Figures:
    """What of an epoch's record the portal shows."""
    figures = {"train_loss": record.train_loss, "entropy": record.entropy, "least_decided": least_decided(record)}
    figures |= {f"expected_{name}": value for name, value in record.expected_costs.items()}
    figures |= {f"multiplier_{name}": value for name, value in record.multipliers.items()}
    return {name: float(value) for name, value in figures.items() if value is not None}


def least_decided(record: EpochRecord | Mapping[str, Any]) -> float:
    """Probability of the most probable candidate of the choice that is least decided."""
    probabilities = record.probabilities if isinstance(record, EpochRecord) else record["probabilities"]
    return min((max(values) for values in probabilities.values()), default=1.0)
