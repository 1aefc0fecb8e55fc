"""Where a quantizer's step should start: least squared error (ours) against LSQ's own `2 mean|x| / sqrt(Qp)`.

    python benchmarks/step_start.py [--quick] [--json FILE]

A network of the basic space (x2, 24 channels, all 3x3) is trained in full precision on the packaged photographs; its
quantized copies then go on from there for a while, with either start. PSNR on the held-out photographs.
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
import copy
import math
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn

from quantnas_ext.architecture import Architecture
from quantnas_ext.quantization import give_steps_a_group, initial_step, quantizers
from quantnas_ext.quantization.lsq import integer_range
from quantnas_ext.quantization.magnitudes import BINS, BINS_PER_OCTAVE, HIGHEST_OCTAVE, LOWEST_OCTAVE
from quantnas_ext.quantization.quantizers import MEMORY
from quantnas_ext.reporting.table import format_table
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import DataConfig
from quantnas_ext.search.loop.sampling import EpochSampler
from quantnas_ext.sr.data.patches import PatchDataset
from quantnas_ext.sr.data.photographs import with_photographs
from quantnas_ext.sr.evaluation.metrics import evaluate_folder
from quantnas_ext.sr.evaluation.score_files import check_new_file, write_json

ARGUMENTS = {"scale": 2, "width": 24, "cells": 3, "adq": False, "bits": [32]}
BLOCKS = ("head_0", "head_1", "body_0", "body_1", "body_skip", "upsample_0", "tail_0", "tail_1")
BATCH = 8


def lsq_start_of_histogram(histogram: Tensor, largest: Tensor, bits: int, *, signed: bool) -> tuple[float, float]:
    """The same of a histogram of magnitudes, each value in the middle of its bin; the error is not looked at."""
    octaves = torch.linspace(LOWEST_OCTAVE, HIGHEST_OCTAVE, BINS + 1)[:-1] + 0.5 / BINS_PER_OCTAVE
    mean = float((histogram.sum(dim=0).cpu() * octaves.exp2()).sum() / MEMORY)
    return max(2 * mean / math.sqrt(integer_range(bits, signed=signed)[1]), 1e-8), 0.0


def lsq_start(x: Tensor, bits: int, *, signed: bool, per_channel: bool = False) -> Tensor:
    """The start of section 2.1 of Esser et al., "Learned Step Size Quantization", ICLR 2020."""
    magnitude = x.detach().float().abs()
    mean = magnitude.mean(dim=tuple(range(1, x.dim())), keepdim=True) if per_channel else magnitude.mean()
    return (2 * mean / math.sqrt(integer_range(bits, signed=signed)[1])).clamp_min(1e-8)


STARTS: dict[str, Callable[..., Tensor]] = {"least squared error": initial_step, "LSQ": lsq_start}


def train(network: nn.Module, images: PatchDataset, iterations: int, learning_rate: float) -> None:
    """Adam on L1 with a cosine to zero, the same data for every call."""
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    give_steps_a_group(optimizer, network)  # as final training does
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    order = iter(EpochSampler(len(images), iterations * BATCH, seed=0))
    for _ in range(iterations):
        inputs, targets = (torch.stack(part) for part in zip(*(images[next(order)] for _ in range(BATCH)), strict=True))
        optimizer.zero_grad()
        nn.functional.l1_loss(network(inputs), targets).backward()
        optimizer.step()
        scheduler.step()


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the iterations: shows that it runs")
    parser.add_argument("--json", metavar="FILE", help="file to write the figures to")
    arguments = parser.parse_args(argv)
    if arguments.json:
        check_new_file(arguments.json)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    data = with_photographs(DataConfig(photographs="data/photographs"), 2)
    (held_out,) = data.test.values()
    images = PatchDataset(data.train, 2, 32, seed=0)
    shorter = 10 if arguments.quick else 1

    choices = {block: "conv_3x3" for block in BLOCKS} | {f"{block}__conv_3x3__bits": 32 for block in BLOCKS}
    plain = Architecture("sr_basic", ARGUMENTS, choices)
    network = plain.build()
    train(network, images, 900 // shorter, 1e-3)
    rows = [{"network": "full precision", "psnr": evaluate_folder(network, held_out, 2).mean["psnr"]}]
    for bits in (8, 4):
        for start, function in STARTS.items():
            with mock.patch.object(quantizers, "initial_step", function):
                quantized = copy.deepcopy(plain.with_precision(bits)).build()
                quantized.load_state_dict(network.state_dict(), strict=False)
                for layer in quantized.modules():
                    if hasattr(layer, "reset_steps"):
                        layer.reset_steps()
                train(quantized, images, 250 // shorter, 5e-4)
            psnr = evaluate_folder(quantized, held_out, 2).mean["psnr"]
            rows.append({"network": f"{bits} bits, {start}", "psnr": psnr})
    shown = [{**row, "psnr": f"{row['psnr']:.2f}"} for row in rows]
    print(format_table(shown, ["network", "psnr"]))
    if arguments.json:
        write_json({row["network"]: row["psnr"] for row in rows}, arguments.json)


if __name__ == "__main__":
    command_line.run(main)
