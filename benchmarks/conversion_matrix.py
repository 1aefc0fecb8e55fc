"""Which networks become spaces of precisions, and what a step of their search costs.

    python benchmarks/conversion_matrix.py [--only resnet18,...] [--side 64] [--rounds 5] [--out FILE]

Networks of timm with new weights and model spaces of NNI's hub: layers converted, left and why; whether two steps of a
search without costs move the logits of every choice; whether BitOps of three random architectures equal an independent
count by hooks on the layers of the frozen network and torch's own counter for all else; whether freezing keeps all
weights; whether the space at 32 bits gives exactly the original's output; and the time of a search step (both phases)
as a ratio to two plain training steps, median of interleaved rounds, one thread, batches of eight images. Each
network's row is kept in FILE (JSON) as soon as it is known, and a later call measures only those that are missing.
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
import copy
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nni.mutable import Categorical
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from quantnas_ext import BitOps, InputError, QuantNAS, from_timm, quantize
from quantnas_ext.files.atomic import write_text
from quantnas_ext.quantization import quantized_layers
from quantnas_ext.reporting.table import format_table
from quantnas_ext.runs import command_line

BITS = [4, 8, 32]
CLASSES = 10
BATCH = 8
MODELS = """
resnet18 resnet50 mobilenetv3_small_050 mobilenetv3_large_100 efficientnet_b0 efficientnet_lite0 tf_efficientnet_lite0
regnetx_002 nf_regnet_b0 convnext_atto ghostnet_100 mnasnet_100 repvgg_a0 vit_tiny_patch16_224
swin_tiny_patch4_window7_224 mobilevit_xxs
""".split()
FIXED_SIZE = ("vit", "swin")
"""Networks that are built for one size of images."""


def timm_space(name: str, side: int) -> tuple[ModelSpace, nn.Module, Any]:
    """A network as a space, a copy of it as it was, and the report."""
    size = {"input_size": [side, side]} if name.startswith(FIXED_SIZE) else {}
    torch.manual_seed(0)
    space = from_timm(name, BITS, num_classes=CLASSES, **size)
    import timm

    torch.manual_seed(0)
    size = {"img_size": (side, side)} if size else {}
    original = timm.create_model(name, num_classes=CLASSES, **size)
    return space, original, space.report


def hub_space(name: str, side: int) -> tuple[ModelSpace, nn.Module, Any]:
    """A space of NNI's hub, reduced where it can be, converted; a copy as it was; and the report."""
    from nni.nas.hub import pytorch as hub

    torch.manual_seed(0)
    make: dict[str, Callable[[], ModelSpace]] = {
        "NasBench201": lambda: hub.NasBench201(num_modules_per_stack=1),
        "ProxylessNAS": lambda: hub.ProxylessNAS(num_labels=CLASSES),
        "ShuffleNetSpace": lambda: hub.ShuffleNetSpace(num_labels=CLASSES),
        "MobileNetV3Space": lambda: hub.MobileNetV3Space(num_labels=CLASSES),
        "AutoFormer": lambda: hub.AutoFormer(num_labels=CLASSES),
        "DARTS": lambda: hub.DARTS(width=8, num_cells=4, dataset="cifar"),
        "ENAS": lambda: hub.ENAS(width=8, num_cells=4, dataset="cifar"),
    }
    space = make[name]()
    original = copy.deepcopy(space)
    report = quantize(space, BITS, torch.randn(2, 3, side, side))
    return space, original, report


HUB = ("NasBench201", "ProxylessNAS", "ShuffleNetSpace", "MobileNetV3Space", "AutoFormer", "DARTS", "ENAS")


def independent_bitops(network: nn.Module, x: Tensor) -> float:
    """Products of quantized layers by their shapes times their bits, and all others by torch's counter at 32 x 32."""
    macs: dict[nn.Module, int] = {}

    def count(layer: Any, inputs: Any, output: Tensor) -> None:
        macs[layer] = macs.get(layer, 0) + output.numel() * layer.weight[0].numel()

    layers = list(quantized_layers(network))
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(x)
    for hook in hooks:
        hook.remove()
    others = counter.get_total_flops() // 2 - sum(macs.values())
    weighted = sum(n * layer.precision.weight_bits * layer.precision.activation_bits for layer, n in macs.items())
    return (weighted + others * 32 * 32) / len(x)


def random_sample(space: ModelSpace, generator: random.Random) -> dict[str, Any]:
    """One value for every choice."""
    return {
        label: generator.choice(choice.values) if isinstance(choice, Categorical) else choice.default()
        for label, choice in space.simplify().items()
    }


def row_of(name: str, side: int, rounds: int) -> dict[str, Any]:
    """What a network's row of the table says."""
    row: dict[str, Any] = {"network": name}
    try:
        space, original, report = (timm_space if name in MODELS else hub_space)(name, side)
    except InputError as error:
        return row | {"refused": str(error)}
    row |= {"converted": len(report.converted), "left": Counter(layer.reason for layer in report.left)}
    x, generator = torch.randn(BATCH, 3, side, side), random.Random(0)
    cost = BitOps((1, 3, side, side))
    samples = [random_sample(space, generator) for _ in range(3)]
    try:
        counted = [(cost.of_network(f := space.freeze(s)), independent_bitops(f, x)) for s in samples]
        row["bitops"] = all(abs(ours / other - 1) < 1e-9 for ours, other in counted)
        weights = dict(space.named_parameters())
        frozen = space.freeze(samples[0])
        row["weights"] = all(
            torch.equal(p, weights[n]) for n, p in frozen.named_parameters() if ".log_step" not in n and n in weights
        )
        plain: dict[str, Any] = {**samples[0], **{layer.label: 32 for layer in report.converted if layer.label}}
        like = original if name in MODELS else original.freeze(samples[0])
        if name not in MODELS:
            like.load_state_dict(space.freeze(plain).state_dict(), strict=False)
        with torch.no_grad():
            row["exact"] = torch.equal(space.freeze(plain).eval()(x), like.eval()(x))
        row |= steps(space, original if name in MODELS else None, x, rounds)
    except (InputError, KeyError) as error:
        row["stopped"] = str(error)
    return row


def steps(space: ModelSpace, original: nn.Module | None, x: Tensor, rounds: int) -> dict[str, Any]:
    """Choices whose logits one step moves, and the time of a step in plain ones."""
    strategy, loss = QuantNAS(architecture_learning_rate=0.1), nn.CrossEntropyLoss()
    supernet, y = strategy.mutate_model(space).train(), torch.arange(len(x)) % CLASSES
    strategy.start(torch.optim.Adam(supernet.parameters(), 1e-4), epochs=1, steps_per_epoch=rounds + 2)
    logits = strategy.distribution.logits
    before = {label: logit.detach().clone() for label, logit in logits.items()}

    def search(step: int) -> None:
        for phase_of in (strategy.architecture_phase, strategy.weight_phase):
            with phase_of(step) as phase:
                phase.minimize(loss(supernet(x), y))

    search(0)
    search(1)  # branches that start at zero, such as a last batch norm's, pass a gradient on from the second step
    moved = sum(bool((logit.detach() != before[label]).all()) for label, logit in logits.items())
    found = {"moved": moved, "choices": len(logits)}
    if original is None:
        return found
    optimizer = torch.optim.Adam(original.train().parameters(), 1e-4)
    ratios = []
    for step in range(2, rounds + 2):
        start = time.perf_counter()
        search(step)
        middle = time.perf_counter()
        for _ in range(2):
            optimizer.zero_grad()
            loss(original(x), y).backward()
            optimizer.step()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return found | {"ratio": statistics.median(ratios)}


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark with these arguments (the command line's, if None)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAMES", help="networks, separated by commas")
    parser.add_argument("--side", type=int, default=64, help="pixels a side of the images")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps")
    parser.add_argument("--out", metavar="FILE", help="JSON file that keeps the rows")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    names = arguments.only.split(",") if arguments.only else [*MODELS, *HUB]
    out = Path(arguments.out) if arguments.out else None
    rows: dict[str, Any] = json.loads(out.read_text()) if out is not None and out.exists() else {}
    for name in names:
        if name not in rows:
            rows[name] = row_of(name, arguments.side, arguments.rounds)
            print(json.dumps(rows[name]), flush=True)
        if out is not None:
            write_text(out, json.dumps(rows, indent=1) + "\n")
    print(format_table([written(rows[name]) for name in names], ["network", *HEADS]))


HEADS = ("converted", "left", "logits moved", "BitOps", "weights kept", "exact at 32", "step / 2 plain")


def written(row: dict[str, Any]) -> dict[str, str]:
    """A row as the table shows it."""
    if "refused" in row:
        return {"network": row["network"], "left": f"refused: {row['refused']}"}
    left = "; ".join(f"{count} ({reason})" for reason, count in row["left"].items()) or "none"
    yes = {True: "yes", False: "NO", None: "-"}
    cells = {
        "network": row["network"],
        "converted": str(row["converted"]),
        "left": left,
        "logits moved": f"{row['moved']} of {row['choices']}" if "moved" in row else f"stopped: {row['stopped']}",
        "BitOps": yes[row.get("bitops")],
        "weights kept": yes[row.get("weights")],
        "exact at 32": yes[row.get("exact")],
    }
    return cells | {"step / 2 plain": f"{row['ratio']:.2f}" if "ratio" in row else "-"}


if __name__ == "__main__":
    command_line.run(main)
