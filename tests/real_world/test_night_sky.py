"""Images that are mostly black, with a few bright points: a batch says next to nothing about the range of the next."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from quantnas_ext.quantization import QuantConv2d, give_steps_a_group, reset_steps, set_quantization

SIDE, ITERATIONS = 16, 160


def sky(seed: int, images: int, points: int) -> Tensor:
    """``[images, 3, 16, 16]``: noise of a hundredth, and points of light three pixels wide."""
    generator = torch.Generator().manual_seed(seed)
    result = 0.01 * torch.rand(images, 1, SIDE, SIDE, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    for _ in range(points):
        image = int(torch.randint(images, (), generator=generator))
        row, column = (SIDE * torch.rand(2, generator=generator)).tolist()
        result[image, 0] += 0.9 * torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 2)
    return result.clamp(0, 1).repeat(1, 3, 1, 1)


def score(bits: int, seed: int, full_precision: int) -> float:
    """PSNR in dB, on bright images, of a small network that learned to sharpen; its first batches were all dark."""
    torch.manual_seed(seed)
    layers = [QuantConv2d(*c, 3, padding=1, bits=bits, signed=False) for c in ((3, 12), (12, 12), (12, 3))]
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    give_steps_a_group(optimizer, network)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ITERATIONS)
    set_quantization(network, full_precision == 0)
    for iteration in range(ITERATIONS):
        if iteration == full_precision > 0:
            set_quantization(network, True)
            reset_steps(network)
        dark = 0 <= iteration - full_precision < 2
        targets = sky(1000 * seed + iteration, 8, 0 if dark else 8)
        optimizer.zero_grad()
        nn.functional.l1_loss(network(nn.functional.avg_pool2d(targets, 3, 1, 1)), targets).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    targets = sky(99, 16, 32)
    with torch.no_grad():
        outputs = network(nn.functional.avg_pool2d(targets, 3, 1, 1)).clamp(0, 1)
    return -10 * math.log10(float((outputs - targets).square().mean()))


@pytest.mark.parametrize("full_precision", [0, 60])
def test_a_first_batch_without_a_star_does_not_decide_what_stars_look_like(full_precision: int) -> None:
    for seed in range(2):
        exact = score(32, seed, 0)
        assert score(8, seed, full_precision) > exact - 2
        assert score(4, seed, full_precision) > exact - 5
