"""What the entropy regularizer does to a search: how decided it ends, and what deciding then costs.

    python benchmarks/entropy_ablation.py [--quick] [--seeds 3] [--mixtures] [--json FILE]

Small searches of the basic space (x2, 16 channels, 2 cells) on the packaged photographs, with and without the entropy
of Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024). Runs of one seed share first weights and
logits, crops and noise. Reported are

* the share of blocks whose largest joint probability of operation and precision exceeds 0.9 at the end;
* the discretisation gap, the supernet's own PSNR less that of the network derived from it, without any training of its
  own: first of its operations in full precision ("deciding"), then of the network in its found precisions ("whole").
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Penalty
from quantnas_ext.errors import InputError
from quantnas_ext.reporting.table import Column, format_table
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import DataConfig
from quantnas_ext.search.discretization_gap import derive_and_score
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space
from quantnas_ext.sr.data.patches import PatchDataset, split_dataset
from quantnas_ext.sr.data.photographs import with_photographs
from quantnas_ext.sr.evaluation.metrics import psnr_rgb
from quantnas_ext.sr.evaluation.score_files import check_new_file, write_json
from quantnas_ext.threads import set_threads

ARGUMENTS: dict[str, Any] = {
    "scale": 2,
    "width": 16,
    "cells": 2,
    "adq": False,
    "bits": [4, 8],
    "head": ["conv_3x3", "conv_5x5"],
    "body": ["conv_3x3", "conv_5x5", "fac_3x3"],
    "skip": ["conv_1x1", "conv_3x3"],
    "upsample": ["conv_3x3", "conv_5x5"],
    "tail": ["conv_3x3", "conv_5x5"],
}
PATCH, BATCH = 16, 8
EPOCHS, WARMUP = 24, 12
STEPS, QUICK_STEPS = 20, 2
"""Steps of an epoch. The logits get 240 of them, at ten times the reciprocal of that as their learning rate."""

VARIANTS: dict[str, dict[str, Any]] = {
    "no entropy": {"entropy": 0.0},
    "entropy 0.01": {"entropy": 0.01},
    "entropy 0.05": {"entropy": 0.05},
}
MIXTURES: dict[str, dict[str, Any]] = {
    "entropy 0.05, power": {"entropy": 0.05, "noise_mixture": "power"},
}
"""The other mixture of noise; the variants above have "rss"."""

DECIDED = 0.9
FIGURES = {
    "decided": ("blocks above 0.9, %", "{:.0f}"),
    "supernet": ("supernet, dB", "{:.2f}"),
    "deciding": ("gap of deciding, dB", "{:.2f}"),
    "whole": ("whole gap, dB", "{:.2f}"),
    "derived": ("derived, dB", "{:.2f}"),
    "gbitops": ("GBitOps", "{:.2f}"),
}
"""Heading and format of each figure of a run."""


def search(seed: int, options: Mapping[str, Any], images: PatchDataset, steps: int) -> dict[str, Any]:
    """One search, and its figures.

    Args:
        seed: of everything random.
        options: of ``QuantNAS``.
        images: to search on.
        steps: of an epoch.

    Returns:
        The figures by their names in ``FIGURES``, and ``confidences``: every block's largest joint probability.
    """
    set_seed(seed)
    space = build_space("sr_basic", ARGUMENTS)
    for_weights, for_logits = split_dataset(images, 0.5, seed)
    strategy = QuantNAS(
        costs=[Penalty(BitOps((1, 3, 32, 32)), 1e-3)],
        architecture_learning_rate=10 / ((EPOCHS - WARMUP) * steps),
        warmup_epochs=WARMUP,
        **options,
    )
    evaluator = AccelerateEvaluator(
        for_weights, for_logits, epochs=EPOCHS, steps_per_epoch=steps, batch_size=BATCH, seed=seed, channels_last=True
    )
    with tempfile.TemporaryDirectory() as folder:
        choices = run_experiment(space, evaluator, strategy, Path(folder))
    batches = (evaluator.training_batches(), evaluator.validation_batches())
    _, scores = derive_and_score(strategy, *batches, {"psnr": psnr_rgb})
    psnr = {name: of["psnr"] for name, of in scores.items()}
    confidences = strategy.distribution.confidences()
    decided = sum(probability > DECIDED for probability in confidences.values())
    return {
        "decided": 100 * decided / len(confidences),
        "supernet": psnr["supernet"],
        "deciding": psnr["supernet"] - psnr["full_precision"],
        "whole": psnr["supernet"] - psnr["derived"],
        "derived": psnr["derived"],
        "gbitops": Architecture.of("sr_basic", ARGUMENTS, choices).cost["bitops_32"] / 1e9,
        "confidences": confidences,
    }


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps: shows that it runs")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each variant (default: 3)")
    parser.add_argument("--mixtures", action="store_true", help='also search with the noise mixture "power"')
    parser.add_argument("--json", metavar="FILE", help="file to write the figures to")
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1:
        raise InputError(f"--seeds {arguments.seeds} is not possible; use at least 1")
    if arguments.json:
        check_new_file(arguments.json)
    torch.set_flush_denormal(True)
    set_threads(None)
    variants = VARIANTS | (MIXTURES if arguments.mixtures else {})
    data = with_photographs(DataConfig(photographs="data/photographs"), ARGUMENTS["scale"])
    report: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for seed in range(arguments.seeds):
        images = PatchDataset(data.train, ARGUMENTS["scale"], PATCH, seed)
        for name, options in variants.items():
            found = search(seed, options, images, QUICK_STEPS if arguments.quick else STEPS)
            report[name].append({"seed": seed, **found})
    columns = [Column("variant", "variant"), Column("seed", "seed")]
    columns += [Column(key, heading) for key, (heading, _) in FIGURES.items()]
    rows = [
        {"variant": name, "seed": str(run["seed"]), **{key: FIGURES[key][1].format(run[key]) for key in FIGURES}}
        for name, runs in report.items()
        for run in runs
    ]
    rows += [{"variant": name, "seed": "mean (min to max)", **_summary(runs)} for name, runs in report.items()]
    print(format_table(rows, columns))
    if arguments.json:
        write_json({"searches": report, "steps": QUICK_STEPS if arguments.quick else STEPS}, arguments.json)


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Mean and range of every figure, as text."""
    shown = {}
    for key, (_, form) in FIGURES.items():
        values = [run[key] for run in runs]
        mean, least, most = (form.format(value) for value in (statistics.fmean(values), min(values), max(values)))
        shown[key] = f"{mean} ({least} to {most})"
    return shown


if __name__ == "__main__":
    command_line.run(main)
