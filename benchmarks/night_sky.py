"""Quantization-aware training on night-sky images: mostly black, a few bright points.

    python benchmarks/night_sky.py [--quick] [--bits 4] [--seeds 4] [--sky bright] [--json FILE]

Such a patch says next to nothing about the range of the next one, so a step taken from a single batch fails here. A
network of the basic space (x2, 24 channels, all 3x3) is trained for 400 iterations (Adam, a cosine from 1e-3 to zero)
on batches of eight patches of 16 pixels: in full precision, quantized from the start, and quantized after 200
full-precision iterations. PSNR in RGB on four images that no training sees, whole. One thread.

Beside it the PSNR of those images' low-resolution versions as the first layer sees them, on the grid of least error. No
layer has a bias here, so a background that this grid makes zero stays black.
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantnas_ext.architecture import Architecture
from quantnas_ext.quantization import give_steps_a_group, initial_step, lsq_quantize, reset_steps, set_quantization
from quantnas_ext.reporting.table import format_table
from quantnas_ext.runs import command_line
from quantnas_ext.sr.data.degradation import downscale
from quantnas_ext.sr.data.images import image_to_tensor
from quantnas_ext.sr.evaluation.score_files import check_new_file, write_json

BLOCKS = ("head_0", "head_1", "body_0", "body_1", "body_skip", "upsample_0", "tail_0", "tail_1")
SCALE, SIDE, BATCH, PATCH, RATE = 2, 128, 8, 16, 1e-3


class Sky(NamedTuple):
    """Points of light on an image of 128 pixels a side.

    Attributes:
        points: their number.
        faintest, brightest: brightness at their middle, of the 1 that is white; what is above that is cut off.
        power: the number of points above a brightness falls as its power ``-1 / power``.
        blur: least and greatest standard deviation of a point, pixels.
        background: its mean in levels of 255, with noise of 0.7 levels; 0 is black without noise.
    """

    points: int
    faintest: float
    brightest: float
    power: float
    blur: tuple[float, float]
    background: float


# Star counts grow by about 10^0.5 a magnitude, so the number above a brightness falls as its power -1.25.
FAINT = Sky(30, 0.1, 3.0, 0.8, (0.8, 1.6), 0.0)
SKIES = {"bright": Sky(15, 0.5, 1.0, 0.4, (0.7, 1.5), 0.0), "faint": FAINT, "grey": FAINT._replace(background=3.0)}
"""Mostly black with a few bright points; with stars of all magnitudes; with those, on a background of 2 to 4 levels."""


def night_sky(generator: np.random.Generator, sky: Sky) -> np.ndarray:
    """``uint8 [128, 128, 3]``: blurred points on a dark background."""
    image = np.zeros((SIDE, SIDE, 3))
    if sky.background:
        image += generator.normal(sky.background, 0.7, (SIDE, SIDE, 1)) / 255
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for _ in range(sky.points):
        row, column = generator.uniform(0, SIDE, 2)
        blur = generator.uniform(*sky.blur)
        brightness = min(sky.brightest, sky.faintest * generator.uniform(0.0, 1.0) ** -sky.power)
        spot = brightness * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * blur**2))
        image += spot[..., None] * generator.uniform(0.7, 1.0, 3)
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def pairs(seed: int, images: int, sky: Sky) -> list[tuple[Tensor, Tensor]]:
    """Images of a seed with their low-resolution versions, ``[1, 3, h, w]`` and ``[1, 3, 2 h, 2 w]`` in [0, 1]."""
    generator = np.random.default_rng(seed)
    originals = [night_sky(generator, sky) for _ in range(images)]
    return [(image_to_tensor(downscale(image, SCALE)), image_to_tensor(image)) for image in originals]


def batches(images: list[tuple[Tensor, Tensor]], seed: int, iterations: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random patches: ``[8, 3, 16, 16]`` and ``[8, 3, 32, 32]``."""
    generator = np.random.default_rng(seed)
    for _ in range(iterations):
        crops = []
        for index in generator.integers(len(images), size=BATCH):
            low, high = images[index]
            row, column = (int(generator.integers(low.shape[d] - PATCH + 1)) for d in (2, 3))
            window = [slice(start, start + PATCH) for start in (row, column)]
            larger = [slice(start * SCALE, (start + PATCH) * SCALE) for start in (row, column)]
            crops.append((low[0][:, window[0], window[1]], high[0][:, larger[0], larger[1]]))
        inputs, targets = zip(*crops, strict=True)
        yield torch.stack(inputs), torch.stack(targets)


def network(bits: int, seed: int, width: int = 24) -> nn.Module:
    """A new network of the basic space with all searched layers at some bits."""
    torch.manual_seed(seed)
    choices: dict[str, str | int] = {block: "conv_3x3" for block in BLOCKS}
    choices |= {f"{block}__conv_3x3__bits": bits for block in BLOCKS}
    arguments = {"scale": SCALE, "width": width, "cells": 1, "adq": False, "bits": [bits]}
    return Architecture("sr_basic", arguments, choices).build()


def train(
    net: nn.Module, images: list[tuple[Tensor, Tensor]], seed: int, iterations: int, full_precision: int = 0
) -> None:
    """As final training: Adam on L1, a cosine from 1e-3 to zero; steps start anew after full-precision iterations."""
    net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    give_steps_a_group(optimizer, net)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    set_quantization(net, full_precision == 0)
    for index, (inputs, targets) in enumerate(batches(images, seed, iterations)):
        if index == full_precision > 0:
            set_quantization(net, True)
            reset_steps(net)
        optimizer.zero_grad()
        nn.functional.l1_loss(net(inputs), targets).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def psnr(net: nn.Module, images: list[tuple[Tensor, Tensor]]) -> float:
    """Mean PSNR in RGB over whole images, dB."""
    net.eval()
    errors = [float((net(low).clamp(0, 1) - high).square().mean()) for low, high in images]
    return sum(-10 * math.log10(error) for error in errors) / len(errors)


@torch.no_grad()
def input_psnr(images: list[tuple[Tensor, Tensor]], bits: int) -> float:
    """Mean PSNR in RGB of the low-resolution images as a first layer of some bits sees them, dB."""
    everything = torch.cat([low for low, _ in images])
    step = initial_step(everything, bits, signed=False)
    errors = (lsq_quantize(everything, step, bits, signed=False) - everything).square().mean(dim=(1, 2, 3))
    return float(-10 * errors.log10().mean())


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed and a quarter of the iterations")
    parser.add_argument("--bits", type=int, default=4, help="of the searched layers")
    parser.add_argument("--seeds", type=int, default=4, help="trainings of each kind")
    parser.add_argument(
        "--sky", choices=list(SKIES), default="bright", help="images: bright points, faint ones, on grey"
    )
    parser.add_argument("--json", metavar="FILE", help="file to write the figures to")
    arguments = parser.parse_args(argv)
    if arguments.json:
        check_new_file(arguments.json)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    iterations, seeds = (100, 1) if arguments.quick else (400, arguments.seeds)
    kinds = {
        "full precision": (32, 0),
        f"{arguments.bits} bits": (arguments.bits, 0),
        f"{arguments.bits} bits after {iterations // 2} in full precision": (arguments.bits, iterations // 2),
    }
    sky = SKIES[arguments.sky]
    images, held_out = pairs(0, 16, sky), pairs(1, 4, sky)
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tqdm(total=len(kinds) * seeds, desc="trainings", unit="training") as bar:
        for seed in range(seeds):
            for kind, (bits, full_precision) in kinds.items():
                net = network(bits, seed)
                train(net, images, seed, iterations, full_precision)
                found[kind].append(psnr(net, held_out))
                bar.update()
    rows = [{"network": kind} | {f"seed {seed}": f"{v:.2f}" for seed, v in enumerate(found[kind])} for kind in kinds]
    print(format_table(rows, list(rows[0])))
    print(f"The input at {arguments.bits} bits: {input_psnr(held_out, arguments.bits):.2f} dB")
    if arguments.json:
        write_json(found, arguments.json)


if __name__ == "__main__":
    command_line.run(main)
