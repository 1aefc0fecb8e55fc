"""A whole search, and its typed result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from quantnas_ext.search.discretization_gap import derive_and_score
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.strategy import QuantNAS


@dataclass(frozen=True)
class SearchResult:
    """What a search has found, and how it got there.

    Attributes:
        choices: of the found architecture, an NNI sample.
        records: of all epochs, the state before the first included.
        seconds: that the search took.
        network: the derived network with the supernet's weights, calibrated.
        scores: by metric, of supernet, full precision and derived network, see ``derive_and_score``.
        top: log-probability and choices of the most probable architectures. Among equally probable ones the found one
            comes first.
        confidences: largest joint probability of every block.
        spent: what the found architecture costs, a line for each cost.
    """

    choices: dict[str, Any]
    records: list[EpochRecord]
    seconds: float
    network: nn.Module
    scores: dict[str, dict[str, float]]
    top: list[tuple[float, dict[str, Any]]]
    confidences: dict[str, float]
    spent: list[str]

    @property
    def epoch(self) -> int:
        """The epoch that was derived from: of those with a settled loss the one of the lowest, else the last."""
        measured = [record for record in self.records if record.settled_loss is not None]
        return (
            min(measured, key=lambda record: record.settled_loss or 0.0).epoch if measured else self.records[-1].epoch
        )


def run_search(
    space: ModelSpace,
    evaluator: AccelerateEvaluator,
    strategy: QuantNAS,
    folder: Path,
    *,
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    kept: Mapping[str, Any] | None = None,
    top_k: int = 1,
) -> SearchResult | None:
    """Search, derive the found network, and score it beside the supernet.

    Args:
        space, evaluator, strategy, folder: as for ``run_experiment``.
        metrics: what to score by: functions of outputs and targets that give a scalar.
        kept: choices that the space no longer has (``fix_operations``); they become part of every architecture.
        top_k: how many of the most probable architectures to list.

    Returns:
        The result; None on all processes but the main one.

    Raises:
        InputError, FloatingPointError: as ``AccelerateEvaluator.evaluate`` and ``QuantNAS.mutate_model``.
        KeyboardInterrupt: when the user interrupts the search.
    """
    start = time.perf_counter()
    choices = {**(kept or {}), **run_experiment(space, evaluator, strategy, folder)}
    seconds = time.perf_counter() - start
    if not process_state().is_main_process:
        return None
    batches = evaluator.training_batches(), evaluator.validation_batches()
    network, scores = derive_and_score(strategy, *batches, dict(metrics))
    top = [
        (log_probability, {**(kept or {}), **sample}) for log_probability, sample in strategy.top_architectures(top_k)
    ]
    top.sort(key=lambda entry: entry[1] != choices)
    return SearchResult(
        choices=choices,
        records=evaluator.records,
        seconds=seconds,
        network=network,
        scores=scores,
        top=top,
        confidences=strategy.distribution.confidences(),
        spent=strategy.objective.spent(choices),
    )
