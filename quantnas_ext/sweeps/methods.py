"""How a trial comes to its architecture: by one search, by two, by chance, at one precision, or by NNI's DARTS."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.counted import CostCounter
from quantnas_ext.costs.goals import Budget
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import Precision
from quantnas_ext.runs.config import Config, save_config
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.runs.search_goals import goals_of
from quantnas_ext.spaces import build_space
from quantnas_ext.sr.search_run import search
from quantnas_ext.sweeps.reporting import EpochReports
from quantnas_ext.sweeps.warmup import search_from_shared_warmup

Finder = Callable[[Config, Path, EpochReports], None]
"""Fills a run folder up to its architecture, from where an earlier start has left it.

Takes the configuration, the folder of shared warm-ups, and what is told of every epoch.
"""


def by_search(config: Config, warmups: Path, reports: EpochReports) -> None:
    """Search operations and precisions together."""
    search_from_shared_warmup(config, warmups, reports)


def by_two_searches(config: Config, warmups: Path, reports: EpochReports) -> None:
    """Search operations in full precision, then precisions for them."""
    first = _full_precision(config, warmups, reports)
    kept = dataclasses.replace(config.search, operations=str(first.architecture))
    search(dataclasses.replace(config, search=kept), resume=True, watcher=reports)


def at_one_precision(config: Config, warmups: Path, reports: EpochReports) -> None:
    """Search operations in full precision, and give all layers the highest precision that keeps the budgets."""
    first, run = _full_precision(config, warmups, reports), RunFolder(config.run)
    found = Architecture.load(first.architecture)
    tree = ChoiceTree.of(build_space(config.space.name, config.space.arguments))
    values = {Precision.parse(value) for choice in tree if choice.kind == "precision" for value in choice.values}
    by_bits = sorted(values, key=lambda one: one.weight_bits * one.activation_bits, reverse=True)
    budgets = [goal for goal in goals_of(config.search) if isinstance(goal, Budget)]
    for precision in by_bits:
        architecture = found.with_precision(str(precision))
        counter = CostCounter(
            build_space(architecture.space, architecture.arguments), [budget.cost for budget in budgets]
        )
        costs = counter.of(architecture.choices)
        if all(cost.value <= budget.maximum for cost, budget in zip(costs, budgets, strict=True)):
            shutil.copyfile(first.weights, run.weights)
            save_config(config, run.config)
            architecture.save(run.architecture)
            return
    raise InputError(
        f"no precision of the space keeps the budgets for all layers alike, not even {by_bits[-1]}; give a larger one"
    )


def by_chance(config: Config, warmups: Path, reports: EpochReports) -> None:
    """Draw an architecture that a search with the same budgets could find."""
    from quantnas_ext.sr.baseline_searches import draw_architectures  # here, as it loads Lightning

    run = RunFolder(config.run)
    (architecture,), how = draw_architectures(config, 1)
    print(f"drawn {how}")
    save_config(config, run.config)
    architecture.save(run.architecture)


def by_darts(config: Config, warmups: Path, reports: EpochReports) -> None:
    """Search with NNI's DARTS, which knows no budget."""
    from quantnas_ext.sr.baseline_searches import search_with_darts  # here, as it loads Lightning

    search_with_darts(config, RunFolder(config.run), resume=True)


FINDERS: dict[str, Finder] = {
    "two_step": by_two_searches,
    "uniform": at_one_precision,
    "random": by_chance,
    "darts": by_darts,
}
"""By method; all others search."""


def _full_precision(config: Config, warmups: Path, reports: EpochReports) -> RunFolder:
    """The folder of the full-precision search, which is done if it was not."""
    from quantnas_ext.sr.baseline_searches import full_precision_step  # here, as it loads Lightning

    first = full_precision_step(config)
    folder = RunFolder(first.run)
    if folder.state != "found":
        search_from_shared_warmup(first, warmups, EpochReports(folder.path, reports.send))
    return folder
