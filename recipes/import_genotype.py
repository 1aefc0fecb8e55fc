"""Turn a genotype file of the authors' code into an architecture file.

    python recipes/import_genotype.py best_arch.gen --space sr_rfdn --set width=48 --output architecture.yaml

The file is parsed, never run. `--set` gives arguments of the space that it does not hold, such as scale, width and adq,
and the number of cells where they share their blocks. The result can be trained like a found architecture
(`recipes/train.py --architecture architecture.yaml`); weights are not imported.
"""

from __future__ import annotations

import argparse
from typing import Any

from quantnas_ext.errors import InputError, about
from quantnas_ext.files.paths import path_argument
from quantnas_ext.files.schema import read_yaml
from quantnas_ext.genotype import import_genotype
from quantnas_ext.reporting.table import costs_text
from quantnas_ext.runs import command_line
from quantnas_ext.sr.evaluation.score_files import check_new_file


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("genotype", type=path_argument, metavar="GEN", help="genotype file, such as best_arch.gen")
    parser.add_argument("--space", required=True, metavar="NAME", help="sr_basic or sr_rfdn")
    parser.add_argument(
        "--set",
        metavar="ARGUMENT=VALUE",
        dest="arguments",
        action="append",
        default=[],
        help="an argument of the space, as in --set width=48; repeatable",
    )
    parser.add_argument(
        "--output", type=path_argument, required=True, metavar="FILE", help="architecture file to write"
    )
    arguments = parser.parse_args(argv)

    check_new_file(arguments.output)
    values: dict[str, Any] = {}
    for text in arguments.arguments:
        name, equals, value = text.partition("=")
        if not (name and equals) or name in values:
            raise InputError(f"--set '{text}' is not possible; write ARGUMENT=VALUE, each once, as in --set width=48")
        with about(f"--set '{text}'"):
            values[name] = read_yaml(value)
    architecture = import_genotype(arguments.genotype, arguments.space, values)
    architecture.save(arguments.output)
    print(costs_text(architecture.costs), arguments.output, sep="\n")


if __name__ == "__main__":
    command_line.run(main)
