"""Search an architecture: `accelerate launch recipes/search.py [--config NAME|FILE] [--set KEY=VALUE ...] [--resume]`.

Without arguments it runs the search of the demo. Everything goes to the run folder: the whole configuration, the found
architecture, its weights as the supernet had them, how it scores beside the supernet, the history, plots and
TensorBoard logs. With --dry-run it only tells what the architectures of the space can cost, and whether the budgets can
be met.
"""

from __future__ import annotations

from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import Config, add_config_arguments, load_config
from quantnas_ext.runs.run_folder import RunFolder


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = command_line.recipe_parser(__doc__)
    add_config_arguments(parser, default="demo")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted search in the run folder")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="tell what architectures can cost, and whether budgets can be met; no more",
    )
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    if arguments.dry_run:
        tell_costs(config)
        return
    if command_line.is_main_process():
        RunFolder(config.run).check(resume=arguments.resume)
    from quantnas_ext.sr.search_run import search  # with all that loads torch, after what can be refused without it

    search(config, resume=arguments.resume)


def tell_costs(config: Config) -> None:
    """Print the least, the uniform and the largest cost of the space, and what that means for the budgets.

    Raises:
        InputError: as a search would, for instance when a budget cannot be met.
    """
    from quantnas_ext.costs.counted import CountedCost
    from quantnas_ext.costs.goals import Budget
    from quantnas_ext.deriving.cost_range import cost_ranges
    from quantnas_ext.reporting.table import Column, cost_column, format_table, si_prefix
    from quantnas_ext.runs.search_goals import goals_of
    from quantnas_ext.search.strategy import QuantNAS
    from quantnas_ext.spaces import build_space
    from quantnas_ext.sr.search_files import keep_operations

    space = build_space(config.space.name, config.space.arguments)
    keep_operations(space, config.search.operations)
    goals = goals_of(config.search)
    ranges = cost_ranges(space, [goal.cost for goal in goals])
    kinds = ("least", "uniform", "largest")
    rows = [
        {"cost of a network": cost_column(CountedCost.of(found.cost, 0)).heading}
        | {kind: getattr(found, kind) for kind in kinds}
        for found in ranges
    ]
    print(format_table(rows, ["cost of a network", *(Column(kind, kind, si_prefix()) for kind in kinds)]))
    for goal, found in zip(goals, ranges, strict=True):
        if isinstance(goal, Budget):
            print(f"the budget of {goal.maximum:.6g} {goal.cost.name} {found.said_of(goal.maximum)}")
    QuantNAS(config.search, costs=goals).check(space)


if __name__ == "__main__":
    command_line.run(main)
