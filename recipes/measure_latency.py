"""Time the candidates of a configuration's space on this machine: the table that a search for low latency needs.

    python recipes/measure_latency.py --config my.yaml --output latency.json
    accelerate launch recipes/search.py --config my.yaml --set search.latency_table=latency.json \\
        --set search.latency_budget=5

What is timed is the float network (see docs/method.md). The table holds for this machine, these threads
(`search.threads`), this version of torch, and this space, whatever its precisions. Let the machine do nothing else
meanwhile.
"""

from __future__ import annotations

from quantnas_ext.arguments import whole_number
from quantnas_ext.files.paths import add_path_argument
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import add_config_arguments, load_config
from quantnas_ext.sr.evaluation.score_files import check_new_file


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = command_line.recipe_parser(__doc__)
    add_config_arguments(parser, default="demo")
    add_path_argument(parser, "--output", "FILE", "the table (JSON)")
    parser.add_argument("--side", type=int, default=32, metavar="PIXELS", help="side of the input (default: 32)")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    check_new_file(arguments.output)
    whole_number("--side", arguments.side, least=1)

    # Only now what loads torch: neither --help nor a refusal waits for it.
    import torch

    from quantnas_ext.costs.goals import Budget
    from quantnas_ext.costs.latency.table import LatencyTable
    from quantnas_ext.deriving.ranking import ArchitectureSelector
    from quantnas_ext.distribution.choices import ChoiceTree
    from quantnas_ext.spaces import build_space
    from quantnas_ext.threads import set_threads

    set_threads(config.search.threads)
    torch.set_flush_denormal(True)
    space = build_space(config.space.name, config.space.arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    table = LatencyTable.measure(space, (1, 3, arguments.side, arguments.side), device=device)
    table.save(arguments.output)
    budget = Budget(table, sum(time for _, time in table.times))  # any that the dearest architecture keeps
    cheapest, dearest = ArchitectureSelector(ChoiceTree.of(space), [budget], [table.terms(space)]).range()
    print(
        f"{arguments.output}: {len(table.times)} times on {table.machine.device}, {table.machine.threads} threads; "
        f"architectures take {cheapest:.3g} to {dearest:.3g} ms for one {arguments.side}x{arguments.side} image"
    )


if __name__ == "__main__":
    command_line.run(main)
