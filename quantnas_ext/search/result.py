"""A whole search, and its typed result."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from quantnas_ext.deriving.calibration import score
from quantnas_ext.search.discretization_gap import derive_and_score
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.measuring import Candidate, SuccessiveHalving, candidates_of
from quantnas_ext.search.strategy import QuantNAS


@dataclass(frozen=True)
class SearchResult:
    """What a search has found, and how it got there.

    Attributes:
        choices: of the found architecture, an NNI sample.
        records: of all epochs, the state before the first included.
        seconds: that the search took.
        network: the derived network with the supernet's weights, calibrated, or as it was measured, whichever has the
            lower validation loss.
        weights: which of the two, in words.
        scores: by metric, of supernet, full precision and derived network, see ``derive_and_score``, and of the network
            as it was ``measured``, if it was.
        top: log-probability and choices of the found architecture, and then of the most probable ones.
        measured: the architectures that it was chosen from, with their losses; empty if none were.
        measuring_seconds: that this took, beside ``seconds``.
        confidences: largest joint probability of every block.
        spent: what the found architecture costs, a line for each cost.
    """

    choices: dict[str, Any]
    records: list[EpochRecord]
    seconds: float
    network: nn.Module
    weights: str
    scores: dict[str, dict[str, float]]
    top: list[tuple[float, dict[str, Any]]]
    measured: list[Candidate]
    measuring_seconds: float
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
    """Search, choose among the best candidates by measuring them, and score the network beside the supernet.

    Args:
        space, evaluator, strategy, folder: as for ``run_experiment``.
        metrics: what to score by: functions of outputs and targets that give a scalar.
        kept: choices that the space no longer has (``fix_operations``); they become part of every architecture.
        top_k: how many of the most probable architectures to list, the found one included.

    Returns:
        The result; None on all processes but the main one.

    Raises:
        InputError, FloatingPointError: as ``AccelerateEvaluator.evaluate`` and ``QuantNAS.mutate_model``.
        KeyboardInterrupt: when the user interrupts the search.
    """
    untouched = copy.deepcopy(space) if strategy.options.measured else space
    start = time.perf_counter()
    found = run_experiment(space, evaluator, strategy, folder)
    seconds = time.perf_counter() - start
    if not process_state().is_main_process:
        return None
    batches = evaluator.training_batches(), evaluator.validation_batches()
    top = strategy.top_architectures(top_k)
    start = time.perf_counter()
    measured, best, trained = candidates_of(strategy), None, None
    if measured:
        file = evaluator.checkpoint and evaluator.checkpoint.with_suffix(f".measured{evaluator.checkpoint.suffix}")
        best, trained = SuccessiveHalving(strategy, untouched, evaluator.data, measured, file).run()
        found = best.choices
        top = [(best.log_probability, found), *(entry for entry in top if entry[1] != found)][:top_k]
    top.sort(key=lambda entry: entry[1] != found)
    measuring_seconds, weights = time.perf_counter() - start, "supernet's, calibrated"
    network, scores = derive_and_score(strategy, *batches, dict(metrics), found)
    if best is not None and trained is not None:
        scores["measured"] = score(trained, batches[1], dict(metrics))
        if best.losses[-1] < score(network, batches[1], {"loss": evaluator.data.loss})["loss"]:
            network, weights = trained, "trained to be measured"

    def whole(sample: dict[str, Any]) -> dict[str, Any]:
        return {**(kept or {}), **sample}

    choices = whole(found)
    return SearchResult(
        choices=choices,
        records=evaluator.records,
        seconds=seconds,
        network=network,
        weights=weights,
        scores=scores,
        top=[(log_probability, whole(sample)) for log_probability, sample in top],
        measured=[replace(candidate, choices=whole(candidate.choices)) for candidate in measured],
        measuring_seconds=measuring_seconds,
        confidences=strategy.distribution.confidences(),
        spent=strategy.objective.spent(choices),
    )
