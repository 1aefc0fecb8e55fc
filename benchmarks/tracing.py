"""How long it takes to count costs: one trace, and the files of the most probable architectures.

    python benchmarks/tracing.py [--rounds N] [--top K] [--json FILE]

For the RFDN-like space of the paper (x4) and one network of it: seconds of a trace at 256x256 pixels, median of
interleaved rounds, on one thread: on the meta device, and with values on the CPU as for a model that needs them. Then
the seconds until the costs of the K most probable architectures are known.
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
import statistics
import time
from typing import Any
from unittest import mock

import torch

from quantnas_ext.architecture import filed_costs
from quantnas_ext.costs import tracing
from quantnas_ext.costs.counted import CostCounter
from quantnas_ext.reporting.table import Column, decimals, format_table
from quantnas_ext.runs import command_line
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space
from quantnas_ext.sr.evaluation.score_files import check_new_file, write_json

SHAPE = (1, 3, 256, 256)
SPACE = "sr_rfdn"
ARGUMENTS = {"scale": 4}


def seconds_of(model: torch.nn.Module, *, values: bool) -> float:
    """Seconds of one trace; with values as where a model cannot do without."""
    copied = mock.Mock(side_effect=RuntimeError) if values else tracing.without_values
    start = time.perf_counter()
    with mock.patch.object(tracing, "without_values", copied):
        tracing.trace_layers(model, SHAPE)
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="traces of each kind")
    parser.add_argument("--top", type=int, default=1000, help="how many architectures are counted")
    parser.add_argument("--json", metavar="FILE", help="file to write the figures to")
    arguments = parser.parse_args(argv)
    if arguments.json:
        check_new_file(arguments.json)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = build_space(SPACE, ARGUMENTS)
    sample: dict[str, Any] = {}
    space.random(sample)
    models = {"space": space, "network": space.freeze(sample)}
    taken: dict[str, dict[str, list[float]]] = {name: {"meta": [], "values": []} for name in models}
    for _ in range(arguments.rounds):
        for name, model in models.items():
            for kind, of in taken[name].items():
                of.append(seconds_of(model, values=kind == "values"))
    rows: list[dict[str, Any]] = [
        {"model": name, **{kind: statistics.median(of) for kind, of in kinds.items()}} for name, kinds in taken.items()
    ]
    columns = ["model", Column("meta", "s on meta", decimals(3)), Column("values", "s with values", decimals(3))]
    print(format_table(rows, columns))

    searched = build_space(SPACE, ARGUMENTS)
    strategy = QuantNAS()
    strategy.mutate_model(searched)
    start = time.perf_counter()
    top = strategy.top_architectures(arguments.top)
    ranked = time.perf_counter() - start
    counter = CostCounter(space, filed_costs(SPACE))
    for _, choices in top:
        counter.of(choices)
    counted = time.perf_counter() - start - ranked
    print(f"{len(top)} architectures: ranked in {ranked:.1f} s, costs counted in {counted:.1f} s")
    if arguments.json:
        write_json({"trace": rows, "ranked": ranked, "counted": counted}, arguments.json)


if __name__ == "__main__":
    command_line.run(main)
