"""The search of a super-resolution network that a configuration asks for, from its images to its run folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing

import torch
from accelerate.utils import set_seed
from torch.nn.functional import l1_loss

from quantnas_ext.deriving.calibration import score
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.runs.config import Config
from quantnas_ext.runs.history import SearchRecorder
from quantnas_ext.runs.run_identity import begun_search
from quantnas_ext.runs.search_goals import goals_of
from quantnas_ext.search.discretization_gap import Metric
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.phases import same_random_numbers
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.loop.trial_step import trial_step
from quantnas_ext.search.options import EvaluatorOptions, gathered
from quantnas_ext.search.result import SearchResult, run_search
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space
from quantnas_ext.spaces.contract import diagram_of
from quantnas_ext.sr.data.decoding import finish_decoding
from quantnas_ext.sr.data.search_data import search_datasets
from quantnas_ext.sr.evaluation.metrics import psnr_rgb
from quantnas_ext.sr.search_files import keep_operations, save_search, search_summary
from quantnas_ext.threads import choose_threads, set_threads

Watcher = Callable[[EpochRecord, Callable[[], float]], None]
"""Called with the record of an epoch, and a function that measures the supernet's PSNR in RGB there, in dB."""

_WATCHED_BATCHES = 4
"""Validation batches that a watcher's PSNR is measured on."""


def search(
    config: Config, *, resume: bool = False, watcher: Watcher | None = None, until: int | None = None
) -> SearchResult | None:
    """Search as a configuration says, and fill its run folder.

    Args:
        config: of the run.
        resume: go on in a run folder that is there already.
        watcher: sees every epoch on the main process, those of a checkpoint that the search goes on from included.
        until: stop after so many epochs, with a checkpoint, from which a later call goes on.

    Returns:
        What was found; None with ``until``, and on all processes but the main one.

    Raises:
        InputError: for anything that is wrong with the configuration, before the run folder is made.
        FloatingPointError: when the loss stops being a finite number.
    """
    # Everything that can be wrong with the input shows before the run folder is made.
    set_seed(config.seed)
    torch.set_flush_denormal(True)
    set_threads(config.search.threads)
    space = build_space(config.space.name, config.space.arguments)
    diagram, tree = diagram_of(space), ChoiceTree.of(space)
    for_weights, for_logits = search_datasets(config, space)
    kept = keep_operations(space, config.search.operations)
    strategy = QuantNAS(config.search, costs=goals_of(config.search))
    strategy.check(space)
    finish_decoding()

    left = ChoiceTree.of(space)  # without the operations that are kept
    with begun_search(config, resume=resume) as run, closing(SearchRecorder(run, left)) as recorder:
        # A table of latencies holds for the threads it was measured with; several processes share the cores evenly.
        if config.search.threads is None and config.search.latency_table is None and process_state().num_processes == 1:
            batch = (config.data.batch_size, 3, config.data.patch, config.data.patch)
            choose_threads(run.path, trial_step(space, strategy, batch))
        process_state().wait_for_everyone()
        options = gathered(EvaluatorOptions, config, config.data, config.search, channels_last=True)

        def on_epoch(record: EpochRecord) -> None:
            recorder(record)
            if watcher is not None:
                watcher(record, lambda: _psnr(strategy, evaluator))

        evaluator = AccelerateEvaluator(
            for_weights, for_logits, options, checkpoint=run.checkpoint, on_epoch=on_epoch, until=until
        )
        if until is not None:
            run_experiment(space, evaluator, strategy, run.nni)
            return None
        metrics: dict[str, Metric] = {"loss": l1_loss, "psnr": psnr_rgb}
        result = run_search(space, evaluator, strategy, run.nni, metrics=metrics, kept=kept, top_k=config.search.top_k)
        if result is not None:
            architecture = save_search(result, config, run, diagram, tree, recorder.history)
            print(search_summary(result, architecture, run))
        return result


def _psnr(strategy: QuantNAS, evaluator: AccelerateEvaluator) -> float:
    """PSNR of the supernet with the distribution's own probabilities, on few batches; the search goes on as before."""
    with same_random_numbers(), torch.no_grad():
        strategy.distribution.settle()
        batches = itertools.islice(evaluator.validation_batches(), _WATCHED_BATCHES)
        return score(strategy.supernet, batches, {"psnr": psnr_rgb})["psnr"]
