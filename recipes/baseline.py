"""What a found architecture is to be compared with: `python recipes/baseline.py {random,uniform,two_step,darts} ...`.

    python recipes/baseline.py random --config my.yaml --count 10 --bitops-budget 2e9 --output runs/random
    python recipes/baseline.py uniform --architecture runs/mine/architecture.yaml --precision 8 --output all_8_bits.yaml
    python recipes/baseline.py two_step --config my.yaml --set run=runs/two_step
    python recipes/baseline.py darts --config my.yaml --set run=runs/darts

Each makes ordinary architecture files, which `recipes/train.py` trains like found ones.
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
import contextlib
import dataclasses
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from accelerate.utils import set_seed
from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.architecture import Architecture, arguments_at
from quantnas_ext.costs.cost import BitOps, Cost, ParameterBytes
from quantnas_ext.costs.goals import Budget
from quantnas_ext.deriving.random_architectures import random_architectures
from quantnas_ext.deriving.ranking import ArchitectureSelector
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import atomic_folder
from quantnas_ext.files.paths import path_argument
from quantnas_ext.nn.operations import is_precision_label
from quantnas_ext.quantization import FULL_PRECISION_BITS, Precision
from quantnas_ext.reporting.table import costs_text
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import Config, add_config_arguments, load_config, save_config
from quantnas_ext.runs.provenance import provenance
from quantnas_ext.runs.run_identity import check_same_search
from quantnas_ext.runs.search_goals import COST_INPUT, goals_of
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.loop.trial_step import trial_step
from quantnas_ext.search.nni_darts import nni_darts
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space
from quantnas_ext.sr.data.decoding import finish_decoding
from quantnas_ext.sr.data.search_data import search_datasets
from quantnas_ext.sr.evaluation.score_files import check_new_file
from quantnas_ext.sr.lightning_evaluator import lightning_evaluator
from quantnas_ext.sr.weights.weight_identity import WeightIdentity
from quantnas_ext.sr.weights.weight_loading import save_weights
from quantnas_ext.threads import choose_threads, set_threads

SEARCH = Path(__file__).parent / "search.py"
BITOPS = BitOps(COST_INPUT)
BYTES = ParameterBytes(COST_INPUT)


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    random = kinds.add_parser("random", help="random architectures of the configuration's space")
    add_config_arguments(random, default="demo")
    random.add_argument("--count", type=int, required=True, metavar="N", help="how many, all different")
    budget = "most BitOps of each at 32x32 (default: the configuration's search.bitops_budget)"
    random.add_argument("--bitops-budget", type=float, metavar="X", help=budget)
    random.add_argument(
        "--output", type=path_argument, required=True, metavar="DIR", help="folder to make for the architecture files"
    )
    uniform = kinds.add_parser("uniform", help="the operations of an architecture at one precision")
    uniform.add_argument(
        "--architecture", type=path_argument, required=True, metavar="FILE", help="architecture file of a search"
    )
    uniform.add_argument("--precision", required=True, metavar="P", help="8, w4a8, or 32 for full precision")
    uniform.add_argument(
        "--output", type=path_argument, required=True, metavar="FILE", help="architecture file to write"
    )
    two_step = kinds.add_parser("two_step", help="search in full precision, then search the precisions")
    add_config_arguments(two_step, default="demo")
    darts = kinds.add_parser("darts", help="search with NNI's own DARTS")
    add_config_arguments(darts, default="demo")
    arguments = parser.parse_args(argv)
    if arguments.kind == "uniform":
        at_one_precision(arguments.architecture, arguments.precision, arguments.output)
        return
    config = load_config(arguments.config, arguments.overrides)
    if arguments.kind == "random":
        draw(config, arguments.count, arguments.bitops_budget, arguments.output)
    elif arguments.kind == "two_step":
        search_in_two_steps(config)
    else:
        search_with_darts(config)


def draw(config: Config, count: int, bitops_budget: float | None, output: str) -> None:
    """Write architecture files of distinct random architectures."""
    if config.search.operations is not None:
        raise InputError("random architectures choose operations too; set 'search.operations' to null")
    set_threads(config.search.threads)
    space = build_space(config.space.name, config.space.arguments)
    maximum = config.search.bitops_budget if bitops_budget is None else bitops_budget
    goals = goals_of(dataclasses.replace(config.search, bitops_budget=maximum))
    budgets = [goal for goal in goals if isinstance(goal, Budget)]
    drawn = random_architectures(space, count, budgets=budgets, seed=config.seed)
    how = "uniformly" if drawn.uniform else "by random probabilities"
    limits = {f"{budget.cost.name}_budget": budget.maximum for budget in budgets}
    source = provenance(config, drawn=how, **limits)
    architectures = [
        Architecture.of(config.space.name, config.space.arguments, sample, source) for sample in drawn.samples
    ]
    folder = command_line.new_run_folder(output)
    with atomic_folder(folder) as temporary:
        for index, architecture in enumerate(architectures):
            architecture.save(temporary / f"architecture_{index:03}.yaml")
    first = sorted((architecture.costs[0] for architecture in architectures), key=lambda cost: cost.value)
    print(f"{count} architectures, drawn {how}: {costs_text([first[0], first[-1]], ' to ')}\n{folder}")


def at_one_precision(architecture: str, precision: str, output: str) -> None:
    """Write the architecture file of the same operations at one precision."""
    check_new_file(output)
    changed = Architecture.load(architecture).with_precision(precision)
    changed.save(output)
    print(costs_text(changed.costs), output, sep="\n")


def search_in_two_steps(config: Config) -> None:
    """Search operations in full precision, then precisions for them; what is done already is not done again."""
    full_precision = step_one(config)
    run = Path(config.run)
    if os.path.isfile(run / "config.yaml"):
        check_same_search(run, config)
    else:
        with command_line.held_run_folder(run):
            save_config(config, run / "config.yaml")
    run_search(full_precision)
    operations = str(Path(full_precision.run) / "architecture.yaml")
    search = dataclasses.replace(config.search, operations=operations)
    run_search(dataclasses.replace(config, run=str(run / "precisions"), search=search))
    print(f"result of both steps: {run / 'precisions' / 'architecture.yaml'}")


def step_one(config: Config) -> Config:
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
        if is_precision_label(choice.label) and len(choice.values) > 1
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
        bitops_budget=scaled_budget(config.search.bitops_budget, in_bitops, BITOPS, unquantized),
        bytes_budget=scaled_budget(config.search.bytes_budget, in_bytes, BYTES, unquantized),
    )
    QuantNAS(costs=goals_of(search)).check(unquantized)
    return dataclasses.replace(
        config,
        run=str(Path(config.run) / "full_precision"),
        space=dataclasses.replace(config.space, arguments=arguments),
        search=search,
    )


def scaled_budget(maximum: float | None, factor: float, cost: Cost, space: ModelSpace) -> float | None:
    """A budget times ``factor``, but no less than the cheapest architecture of ``space`` costs; None for none."""
    if maximum is None:
        return None
    terms = cost.terms(space)
    dearer_than_all = Budget(cost, sum(terms.values()))
    cheapest, _ = ArchitectureSelector(ChoiceTree.of(space), [dearer_than_all], [terms]).range()
    return max(maximum * factor, cheapest)


def run_search(config: Config) -> None:
    """Run `recipes/search.py`, or go on with it, unless its architecture is there already."""
    run = Path(config.run)
    if (run / "architecture.yaml").exists():
        return
    file = run.with_suffix(".yaml")
    save_config(config, file)
    resume = ["--resume"] if (run / "config.yaml").exists() else []
    code = subprocess.run([sys.executable, str(SEARCH), "--config", str(file), *resume]).returncode
    if code:
        sys.exit(code)


def search_with_darts(config: Config) -> None:
    """Search with NNI's DARTS in its Lightning evaluator, and fill the run folder, which stays locked meanwhile."""
    with contextlib.ExitStack() as held:
        _search_with_darts(config, held)


def _search_with_darts(config: Config, held: contextlib.ExitStack) -> None:
    """Search; ``held`` gets the lock of the run folder."""
    if process_state().num_processes > 1:
        raise InputError("NNI's DARTS runs in one process here; start it with python alone")
    for key in ("bitops_budget", "bytes_budget", "latency_budget"):
        if getattr(config.search, key) is not None:
            raise InputError(f"NNI's DARTS keeps no budget; set 'search.{key}' to null")
    if any(wanted.budget is not None for wanted in config.search.costs):
        raise InputError("NNI's DARTS keeps no budget; take those in 'search.costs' out")
    if config.search.operations is not None:
        raise InputError("NNI's DARTS searches the operations here; set 'search.operations' to null")
    set_seed(config.seed)
    torch.set_flush_denormal(True)
    set_threads(config.search.threads)
    space = build_space(config.space.name, config.space.arguments)
    tree = ChoiceTree.of(space)
    train, validation = search_datasets(config, space)
    finish_decoding()
    run = held.enter_context(command_line.held_run_folder(config.run))
    save_config(config, run / "config.yaml")
    if config.search.threads is None:
        batch = (config.data.batch_size, 3, config.data.patch, config.data.patch)
        choose_threads(run, trial_step(space, QuantNAS(quantization="none"), batch))
    strategy = nni_darts(
        arc_learning_rate=config.search.architecture_learning_rate,
        gradient_clip_val=config.search.gradient_clip,
        warmup_epochs=config.search.warmup_epochs,
    )
    start = time.perf_counter()
    evaluator = lightning_evaluator(config, train, validation, run / "tensorboard")
    sample = run_experiment(space, evaluator, strategy, run / "nni")
    seconds = round(time.perf_counter() - start, 1)
    source = provenance(config, strategy="nni.nas.strategy.DARTS", search_seconds=seconds)
    architecture = Architecture.of(config.space.name, config.space.arguments, tree.complete(sample), source)
    identity = WeightIdentity.of(architecture, "supernet's, not calibrated")
    save_weights(strategy.supernet.freeze(sample).state_dict(), run / "weights.safetensors", identity)
    architecture.save(run / "architecture.yaml")
    print(f"found in {seconds:.0f} s: {costs_text(architecture.costs)}\n{run / 'architecture.yaml'}")


if __name__ == "__main__":
    command_line.run(main)
