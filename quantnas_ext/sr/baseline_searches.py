"""Searches that others are compared with: in two steps, and with NNI's own DARTS."""

from __future__ import annotations

import dataclasses
import math
import time

import torch
from accelerate.utils import set_seed
from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.architecture import Architecture, arguments_at
from quantnas_ext.costs.cost import BitOps, Cost, ParameterBytes
from quantnas_ext.costs.goals import Budget
from quantnas_ext.deriving.ranking import ArchitectureSelector
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import FULL_PRECISION_BITS, Precision
from quantnas_ext.runs.config import Config, save_config
from quantnas_ext.runs.provenance import provenance
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.runs.search_goals import COST_INPUT, goals_of
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.loop.trial_step import trial_step
from quantnas_ext.search.nni_darts import nni_darts
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space
from quantnas_ext.sr.data.decoding import finish_decoding
from quantnas_ext.sr.data.search_data import search_datasets
from quantnas_ext.sr.lightning_evaluator import lightning_evaluator
from quantnas_ext.sr.weights.weight_files import save_weights
from quantnas_ext.sr.weights.weight_identity import WeightIdentity
from quantnas_ext.threads import choose_threads, set_threads


def full_precision_step(config: Config) -> Config:
    """The configuration of the full-precision search; all that can be wrong with either step shows here.

    A budget of BitOps is scaled to full precision by 32 * 32 over the geometric mean of the smallest and the largest
    product of weight and activation bits that the space offers: the operations then keep it with the lowest precision,
    and exceed it with the highest, so that the second step has something to decide. It is never below the cheapest
    operations. One of bytes is scaled likewise by the weights' bits; one of latency holds as it is.
    """
    set_threads(config.search.threads)
    space = build_space(config.space.name, config.space.arguments)
    precisions = [
        Precision.parse(value)
        for choice in ChoiceTree.of(space)
        if choice.kind == "precision" and len(choice.values) > 1
        for value in choice.values
    ]
    if not precisions:
        raise InputError("the second step has nothing to choose; give 'space.arguments.bits' at least two precisions")
    if config.search.operations is not None:
        raise InputError("the first step searches the operations; set 'search.operations' to null")
    if any(wanted.budget is not None for wanted in config.search.costs):
        raise InputError("the first step scales 'search.bitops_budget' and 'search.bytes_budget' alone; use those keys")
    search_datasets(config, space)
    arguments = arguments_at(config.space.name, config.space.arguments, FULL_PRECISION_BITS)
    unquantized = build_space(config.space.name, arguments)
    QuantNAS(costs=goals_of(config.search)).check(space)
    products = [precision.weight_bits * precision.activation_bits for precision in precisions]
    weights = [precision.weight_bits for precision in precisions]
    in_bitops = FULL_PRECISION_BITS**2 / math.sqrt(min(products) * max(products))
    in_bytes = FULL_PRECISION_BITS / math.sqrt(min(weights) * max(weights))
    search = dataclasses.replace(
        config.search,
        bitops_budget=_scaled(config.search.bitops_budget, in_bitops, BitOps(COST_INPUT), unquantized),
        bytes_budget=_scaled(config.search.bytes_budget, in_bytes, ParameterBytes(COST_INPUT), unquantized),
    )
    QuantNAS(costs=goals_of(search)).check(unquantized)
    return dataclasses.replace(
        config,
        run=str(RunFolder(config.run).step("full_precision")),
        space=dataclasses.replace(config.space, arguments=arguments),
        search=search,
    )


def _scaled(maximum: float | None, factor: float, cost: Cost, space: ModelSpace) -> float | None:
    """A budget times ``factor``, but no less than the cheapest architecture of ``space`` costs; None for none."""
    if maximum is None:
        return None
    terms = cost.terms(space)
    dearer_than_all = Budget(cost, sum(terms.values()))
    cheapest, _ = ArchitectureSelector(ChoiceTree.of(space), [dearer_than_all], [terms]).range()
    return max(maximum * factor, cheapest)


def search_with_darts(config: Config, run: RunFolder) -> tuple[Architecture, float]:
    """Search with NNI's DARTS in its Lightning evaluator, and fill the run folder, which stays locked meanwhile.

    Goals and kept operations of the configuration have no part in it.

    Returns:
        The found architecture, and the seconds that it took.

    Raises:
        InputError: there are several processes, or the configuration's space, data or folder cannot be used.
    """
    if process_state().num_processes > 1:
        raise InputError("NNI's DARTS runs in one process here; start it with python alone")
    set_seed(config.seed)
    torch.set_flush_denormal(True)
    set_threads(config.search.threads)
    space = build_space(config.space.name, config.space.arguments)
    tree = ChoiceTree.of(space)
    train, validation = search_datasets(config, space)
    finish_decoding()
    strategy = nni_darts(
        arc_learning_rate=config.search.architecture_learning_rate,
        gradient_clip_val=config.search.gradient_clip,
        warmup_epochs=config.search.warmup_epochs,
    )
    with run.held():
        save_config(config, run.config)
        if config.search.threads is None:
            batch = (config.data.batch_size, 3, config.data.patch, config.data.patch)
            choose_threads(run.path, trial_step(space, QuantNAS(quantization="none"), batch))
        start = time.perf_counter()
        evaluator = lightning_evaluator(config, train, validation, run.tensorboard)
        sample = run_experiment(space, evaluator, strategy, run.nni)
        seconds = round(time.perf_counter() - start, 1)
        source = provenance(config, strategy="nni.nas.strategy.DARTS", search_seconds=seconds)
        architecture = Architecture.of(config.space.name, config.space.arguments, tree.complete(sample), source)
        identity = WeightIdentity.of(architecture, "supernet's, not calibrated")
        save_weights(strategy.supernet.freeze(sample).state_dict(), run.weights, identity)
        architecture.save(run.architecture)
        return architecture, seconds
