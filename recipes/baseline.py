"""What a found architecture is to be compared with: `python recipes/baseline.py {random,uniform,two_step,darts} ...`.

    python recipes/baseline.py random --config my.yaml --count 10 --bitops-budget 2e9 --output runs/random
    python recipes/baseline.py uniform --architecture runs/mine/architecture.yaml --precision 8 --output all_8_bits.yaml
    python recipes/baseline.py two_step --config my.yaml --set run=runs/two_step
    python recipes/baseline.py darts --config my.yaml --set run=runs/darts

Each makes ordinary architecture files, which `recipes/train.py` trains like found ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

from quantnas_ext.errors import InputError
from quantnas_ext.files.paths import path_argument
from quantnas_ext.reporting.table import costs_text
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import Config, add_config_arguments, load_config, save_config
from quantnas_ext.runs.run_folder import Folder, RunFolder
from quantnas_ext.runs.run_identity import check_same_run

SEARCH = Path(__file__).parent / "search.py"
WANTS_OPERATIONS = {
    "random": "random architectures choose operations too",
    "two_step": "the first step searches the operations",
    "darts": "NNI's DARTS searches the operations here",
}


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
    if config.search.operations is not None:
        raise InputError(f"{WANTS_OPERATIONS[arguments.kind]}; set 'search.operations' to null")
    if arguments.kind == "random":
        Folder(arguments.output).check()
        draw(config, arguments.count, arguments.bitops_budget, arguments.output)
    elif arguments.kind == "two_step":
        search_in_two_steps(config)
    else:
        darts_search(config)


def draw(config: Config, count: int, bitops_budget: float | None, output: str) -> None:
    """Write architecture files of distinct random architectures."""
    from quantnas_ext.architecture import Architecture
    from quantnas_ext.costs.goals import Budget
    from quantnas_ext.deriving.random_architectures import random_architectures
    from quantnas_ext.files.atomic import atomic_folder
    from quantnas_ext.runs.provenance import provenance
    from quantnas_ext.runs.search_goals import goals_of
    from quantnas_ext.spaces import build_space
    from quantnas_ext.threads import set_threads

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
    folder = Folder(output).make()
    with atomic_folder(folder) as temporary:
        for index, architecture in enumerate(architectures):
            architecture.save(temporary / f"architecture_{index:03}.yaml")
    first = sorted((architecture.costs[0] for architecture in architectures), key=lambda cost: cost.value)
    print(f"{count} architectures, drawn {how}: {costs_text([first[0], first[-1]], ' to ')}\n{folder}")


def at_one_precision(architecture: str, precision: str, output: str) -> None:
    """Write the architecture file of the same operations at one precision."""
    from quantnas_ext.architecture import Architecture
    from quantnas_ext.sr.evaluation.score_files import check_new_file

    check_new_file(output)
    changed = Architecture.load(architecture).with_precision(precision)
    changed.save(output)
    print(costs_text(changed.costs), output, sep="\n")


def search_in_two_steps(config: Config) -> None:
    """Search operations in full precision, then precisions for them; what is done already is not done again."""
    run = RunFolder(config.run)
    if not run.configured:
        run.check()
    from quantnas_ext.sr.baseline_searches import full_precision_step

    first, second = full_precision_step(config), run.step("precisions")
    if run.configured:
        check_same_run(run, config)
    else:
        with run.held():
            save_config(config, run.config)
    run_search(first)
    operations = str(RunFolder(first.run).architecture)
    search = dataclasses.replace(config.search, operations=operations)
    run_search(dataclasses.replace(config, run=str(second), search=search))
    print(f"result of both steps: {second.architecture}")


def run_search(config: Config) -> None:
    """Run `recipes/search.py`, or go on with it, unless its architecture is there already."""
    run = RunFolder(config.run)
    if run.state == "found":
        return
    file = run.path.with_suffix(".yaml")
    save_config(config, file)
    resume = ["--resume"] if run.state == "begun" else []
    code = subprocess.run([sys.executable, str(SEARCH), "--config", str(file), *resume]).returncode
    if code:
        sys.exit(code)


def darts_search(config: Config) -> None:
    """Search with NNI's DARTS."""
    run = RunFolder(config.run)
    for key in ("bitops_budget", "bytes_budget", "latency_budget"):
        if getattr(config.search, key) is not None:
            raise InputError(f"NNI's DARTS keeps no budget; set 'search.{key}' to null")
    if any(wanted.budget is not None for wanted in config.search.costs):
        raise InputError("NNI's DARTS keeps no budget; take those in 'search.costs' out")
    run.check()
    from quantnas_ext.sr.baseline_searches import search_with_darts

    architecture, seconds = search_with_darts(config, run)
    print(f"found in {seconds:.0f} s: {costs_text(architecture.costs)}\n{run.architecture}")


if __name__ == "__main__":
    command_line.run(main)
