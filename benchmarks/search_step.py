"""What one step of a search costs: quantization noise against none, channels last against channels first.

    python benchmarks/search_step.py [--quick] [--device cuda] [--json FILE]

One process, variants interleaved, medians: a step is the architecture phase and the weight phase on the default basic
space (36 channels, 3 cells, x2, bits [4, 8]), batch 8 x 3 x 24 x 24, float32. Ratios are those of the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from quantnas_ext import cli
from quantnas_ext.reporting.table import format_table
from quantnas_ext.search import QuantNAS
from quantnas_ext.spaces import SRBasicSpace
from quantnas_ext.sr.score_files import check_new_file, write_json

VARIANTS = {
    "noise, channels last": ("uniform", torch.channels_last),
    "noise, channels first": ("uniform", torch.contiguous_format),
    "no noise, channels last": ("none", torch.channels_last),
    "no noise, channels first": ("none", torch.contiguous_format),
}
REFERENCE = "no noise, channels last"


class Step:
    """A supernet and one step of its search."""

    def __init__(self, noise: str, memory_format: torch.memory_format, device: str) -> None:
        torch.manual_seed(0)
        space = SRBasicSpace(scale=2, adq=False, bits=[4, 8])
        self.strategy = QuantNAS(noise=noise)  # type: ignore[arg-type]
        self.supernet = self.strategy.mutate_model(space)
        self.supernet.to(device=device, memory_format=memory_format)
        self.strategy.distribution.to(device)
        self.inputs = torch.rand(8, 3, 24, 24, device=device)
        self.targets = torch.rand(8, 3, 48, 48, device=device)

    def __call__(self) -> float:
        """Seconds of one step (without the optimizers)."""
        start = time.perf_counter()
        distribution = self.strategy.distribution
        distribution.draw()
        loss = torch.nn.functional.l1_loss(self.supernet(self.inputs), self.targets)
        torch.autograd.grad(loss, list(distribution.parameters()), allow_unused=True)
        with torch.no_grad():
            distribution.draw()
        torch.nn.functional.l1_loss(self.supernet(self.inputs), self.targets).backward()
        if self.inputs.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="5 rounds instead of 30")
    parser.add_argument("--json", metavar="FILE", help="file to write the ratios to")
    arguments = parser.parse_args(argv)
    if arguments.json:
        check_new_file(arguments.json)
    torch.set_flush_denormal(True)
    steps = {name: Step(*settings, arguments.device) for name, settings in VARIANTS.items()}
    for step in steps.values():
        step()
    rounds = [{name: step() for name, step in steps.items()} for _ in range(5 if arguments.quick else 30)]
    seconds = {name: statistics.median(times[name] for times in rounds) for name in VARIANTS}
    ratios = {}
    for name in VARIANTS:
        values = [times[name] / times[REFERENCE] for times in rounds]
        ratios[f"{name} / {REFERENCE}"] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    rows = [
        {
            "variant": name,
            "ms": f"{1e3 * seconds[name]:.0f}",
            "ratio": "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratios[f"{name} / {REFERENCE}"]),
        }
        for name in VARIANTS
    ]
    print(format_table(rows, ["variant", "ms", "ratio"]))
    if arguments.json:
        write_json({"device": arguments.device, "threads": torch.get_num_threads(), "ratios": ratios}, arguments.json)


if __name__ == "__main__":
    cli.run(main)
