"""What one step of a search costs: quantization noise, direct quantization, none, and paths.

    python benchmarks/search_step.py [--quick] [--device cuda] [--json FILE]

One process, float32, variants interleaved, medians: a step is the architecture phase and the weight phase with their
backward passes, without the optimizers. Ratios are those of one round. Memory is what autograd keeps for the backward
pass of the weight phase, each storage once, without parameters; the noise bank is one buffer of its own.
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Penalty
from quantnas_ext.errors import InputError
from quantnas_ext.nn.candidates import relu_conv
from quantnas_ext.nn.operations import OPERATIONS, register_operation
from quantnas_ext.quantization import activation_quantizers
from quantnas_ext.reporting.table import format_table
from quantnas_ext.runs import command_line
from quantnas_ext.search.loop.phases import frozen
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space
from quantnas_ext.sr.evaluation.score_files import check_new_file, write_json

SPACES: dict[str, dict[str, Any]] = {
    "sr_rfdn": {"scale": 4, "width": 48, "cells": 2, "bits": [4, 8]},
    "sr_basic": {"scale": 4, "width": 36, "cells": 3, "bits": [4, 8]},
}
BATCH = (4, 3, 24, 24)

VARIANTS: dict[str, dict[str, Any]] = {
    "exact": {},
    "fast": {"evaluation": "fast"},
    "noise separate": {"evaluation": "separate"},
    "direct": {"quantization": "direct"},
    "direct separate": {"quantization": "direct", "evaluation": "separate"},
    "separate": {"quantization": "none", "evaluation": "separate"},
    "merged": {"quantization": "none"},
    "two paths": {"relaxation": "two_paths"},
    "one path": {"relaxation": "one_path"},
}
MEANING = {
    "exact": "noise, merged, a scale for each candidate",
    "fast": "noise, merged, one scale for a block",
    "noise separate": "noise, candidates separate",
    "direct": "direct quantization, merged",
    "direct separate": "direct quantization, candidates separate",
    "separate": "no quantization, candidates separate",
    "merged": "no quantization, merged: the floor",
    "two paths": "noise, two paths sampled",
    "one path": "noise, one path sampled",
}
RATIOS = ("exact/direct", "fast/direct", "exact/separate", "fast/merged", "exact/merged")

SINGLES = [f"conv_{size}x{size}" for size in (1, 3, 5)]
GROUPS = (1, 2, 3, 4, 6, 8)


class Step:
    """A supernet and one step of its search.

    Args:
        space: name of the space.
        device: to run on.
        arguments: of the space, in place of those in ``SPACES``.
        options: of ``QuantNAS``.
    """

    def __init__(self, space: str, device: str, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        torch.manual_seed(0)
        model = build_space(space, {**SPACES[space], **arguments})
        self.strategy = QuantNAS(costs=[Penalty(BitOps((1, 3, 32, 32)), 1e-3)], entropy=1e-3, **options)
        self.strategy.mutate_model(model)
        self.supernet: nn.Module = model.to(device=device, memory_format=torch.channels_last)
        self.strategy.distribution.to(device)
        self.strategy.objective.to(device)
        self.weights = list(model.parameters())
        scale = SPACES[space]["scale"]
        self.inputs = torch.rand(BATCH, device=device).to(memory_format=torch.channels_last)
        self.targets = torch.rand(BATCH[0], 3, BATCH[2] * scale, BATCH[3] * scale, device=device)
        self.steps = 0
        self.begin(1)
        with torch.no_grad():
            self.loss()  # starts the steps of activations
        for quantizer in activation_quantizers(model):
            quantizer.end_observation()  # which the first hundreds of batches take time for, and a search has thousands

    def begin(self, phase: int) -> Any:
        """Draw for a phase."""
        self.strategy.context.bank.begin(0, 0, self.steps, phase)
        return self.strategy.distribution.draw()

    def loss(self) -> Tensor:
        """The task loss under the present draw."""
        return nn.functional.l1_loss(self.supernet(self.inputs), self.targets)

    def __call__(self) -> float:
        """Seconds of one step."""
        start = self._now()
        draw = self.begin(0)
        with frozen(self.weights):
            loss, _ = self.strategy.objective(self.loss(), draw, 1.0, 2)
            torch.autograd.grad(loss, list(self.strategy.distribution.parameters()), allow_unused=True)
        with torch.no_grad():
            self.begin(1)
        self.loss().backward()
        for weight in self.weights:
            weight.grad = None
        self.steps += 1
        return self._now() - start

    def cost(self) -> float:
        """Seconds that the expected cost and its gradient take, given the draw."""
        draw = self.begin(0)
        probabilities = draw.expectation
        start = self._now()
        expected = self.strategy.objective.costs[0](draw)
        torch.autograd.grad(expected, [probabilities], retain_graph=True)
        return self._now() - start

    def saved(self) -> int:
        """Bytes that autograd keeps for the backward pass of a weight phase."""
        with torch.no_grad():
            self.begin(1)
        parameters = {weight.untyped_storage().data_ptr() for weight in self.weights}
        kept: dict[int, int] = {}
        alive = []

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no address is used again
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.loss()
        bank = {buffer.untyped_storage().data_ptr() for buffer in self.strategy.context.bank.buffers.values()}
        return sum(size for pointer, size in kept.items() if pointer not in bank)

    def _now(self) -> float:
        if self.inputs.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 20, and only what the ratios need")
    parser.add_argument("--json", metavar="FILE", help="file to write the ratios to")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here; use --device cpu")
    if arguments.json:
        check_new_file(arguments.json)
    torch.set_flush_denormal(True)
    rounds = 3 if arguments.quick else 20
    _register_groups()
    compared = [name for name in VARIANTS if any(name in ratio.split("/") for ratio in RATIOS)]
    report: dict[str, Any] = {"device": arguments.device, "threads": torch.get_num_threads(), "rounds": rounds}
    for space in list(SPACES)[: 1 if arguments.quick else 2]:
        report[space] = _variants(space, arguments.device, rounds, compared if arguments.quick else list(VARIANTS))
    report["ratios"] = report["sr_rfdn"].pop("ratios")
    report["growth"] = _growth(arguments.device, rounds, quick=arguments.quick)
    report["ratios"] |= report["growth"].pop("ratios")
    print(
        format_table(
            [
                {"ratio": name, **{key: f"{value:.3f}" for key, value in of.items()}}
                for name, of in report["ratios"].items()
            ],
            ["ratio", "median", "min", "max"],
        )
    )
    if arguments.json:
        write_json(report, arguments.json)


def _variants(space: str, device: str, rounds: int, variants: Sequence[str]) -> dict[str, Any]:
    """Variants on one space."""
    steps = {name: Step(space, device, {}, VARIANTS[name]) for name in variants}
    seconds = _interleaved({name: step for name, step in steps.items()}, rounds, space)
    cost = [steps["exact"].cost() for _ in range(rounds)]
    memory = {name: step.saved() for name, step in steps.items()}
    rows = [
        {
            "variant": name,
            "what": MEANING[name],
            "ms": f"{1e3 * statistics.median(seconds[name]):.0f}",
            "of direct": _shown(_ratio(seconds[name], seconds["direct"])),
            "saved MB": f"{memory[name] / 1e6:.1f}",
        }
        for name in variants
    ]
    print(f"{space} {SPACES[space]}, batch {BATCH}")
    print(format_table(rows, ["variant", "what", "ms", "of direct", "saved MB"]))
    ratios = {name: _ratio(*(seconds[part] for part in name.split("/"))) for name in RATIOS}
    ratios["memory exact/merged"] = _spread([memory["exact"] / memory["merged"]])
    ratios["cost share"] = _ratio(cost, seconds["exact"])
    return {
        "seconds": {name: _spread(times) for name, times in seconds.items()},
        "saved_bytes": memory,
        "ratios": ratios,
    }


def _growth(device: str, rounds: int, *, quick: bool) -> dict[str, Any]:
    """How a step of the RFDN-like space grows with candidates (single convolutions, all up to 5x5) and precisions."""
    names = [*SINGLES, *(f"conv_{size}x{size}_g{groups}" for groups in GROUPS[1:] for size in (1, 3, 5))]
    steps: dict[str, Callable[[], float]] = {}
    for count in (3, 18) if quick else (3, 6, 9, 18):
        lists = {kind: names[:count] for kind in ("body", "distil", "upsample")}
        steps[f"{count} candidates"] = Step("sr_rfdn", device, {**lists, "tail": SINGLES}, {})
    for bits in ([8], [2, 4, 6, 8]) if quick else ([8], [4, 8], [2, 4, 6, 8]):
        steps[f"{len(bits)} bits"] = Step("sr_rfdn", device, {"bits": bits}, {})
    seconds = _interleaved(steps, rounds, "growth")
    rows = [{"variant": name, "ms": f"{1e3 * statistics.median(times):.0f}"} for name, times in seconds.items()]
    print(format_table(rows, ["variant", "ms"]))
    return {
        "seconds": {name: _spread(times) for name, times in seconds.items()},
        "ratios": {
            "bits 4/1": _ratio(seconds["4 bits"], seconds["1 bits"]),
            "candidates 18/3": _ratio(seconds["18 candidates"], seconds["3 candidates"]),
        },
    }


def _register_groups() -> None:
    """More single convolutions than the candidates of the spaces, for the growth with their number."""

    def build(in_channels: int, out_channels: int, *, width: int, bits: Any, size: int, groups: int) -> nn.Module:
        return nn.Sequential(*relu_conv(in_channels, out_channels, (size, size), bits=bits, groups=groups))

    for groups in GROUPS[1:]:
        for size in (1, 3, 5):
            name = f"conv_{size}x{size}_g{groups}"
            if name not in OPERATIONS:
                register_operation(name)(functools.partial(build, size=size, groups=groups))


def _interleaved(steps: dict[str, Callable[[], float]], rounds: int, title: str) -> dict[str, list[float]]:
    """Seconds of every variant, one after the other in every round; a round before them does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in tqdm(range(-1, rounds), desc=title, unit="round"):
        for name, step in steps.items():
            taken = step()
            if index >= 0:
                seconds[name].append(taken)
    return seconds


def _ratio(times: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    return _spread([a / b for a, b in zip(times, reference, strict=True)])


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _shown(ratio: dict[str, float]) -> str:
    return "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio)


if __name__ == "__main__":
    command_line.run(main)
