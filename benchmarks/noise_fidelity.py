"""How near the merged forms of quantization noise come to candidates with noise of their own.

    python benchmarks/noise_fidelity.py [--quick] [--bits 2 3] [--json FILE]

The RFDN-like space (1 cell, 24 channels, x2) on crops of the packaged photographs, with fresh weights and
after some training. Over many draws of the noise: the variance that it gives the output of the first blocks, relative
to separate candidates, and the cosine between the mean gradients of the logits. Both halves of the separate draws
against each other show how much of a difference is chance: with 4 bits or more nearly all of what noise makes the
gradient of the bits' logits is.
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantnas_ext.errors import InputError
from quantnas_ext.reporting.table import format_table
from quantnas_ext.runs import command_line
from quantnas_ext.runs.config import DataConfig
from quantnas_ext.search.loop.phases import frozen
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRRFDNSpace
from quantnas_ext.sr.data.patches import PatchDataset, split_dataset
from quantnas_ext.sr.data.photographs import with_photographs
from quantnas_ext.sr.evaluation.score_files import check_new_file, write_json
from quantnas_ext.supernet.merged_blocks import MixedSharedInput
from quantnas_ext.supernet.quantization_mode import SearchQuantization

BATCH = 4
FORMS: dict[str, dict[str, Any]] = {
    "separate": {"evaluation": "separate"},
    "separate again": {"evaluation": "separate"},
    "exact": {"evaluation": "exact"},
    "fast": {"evaluation": "fast"},
    "separate, masked": {"evaluation": "separate", "masked": True},
    "exact, masked": {"evaluation": "exact", "masked": True},
    "fast, masked": {"evaluation": "fast", "masked": True},
}


class Fidelity:
    """A supernet whose noise is looked at.

    Args:
        draws: of the noise.
        bits: precisions to choose from.
    """

    def __init__(self, draws: int, bits: list[int]) -> None:
        torch.manual_seed(0)
        self.draws = draws
        self.space = SRRFDNSpace(scale=2, width=24, cells=1, bits=bits, adq=False)
        self.strategy = QuantNAS()
        self.strategy.mutate_model(self.space)
        self.weights = list(self.space.parameters())
        for logits in self.strategy.distribution.parameters():
            nn.init.normal_(logits)
        photographs = with_photographs(DataConfig(photographs="data/photographs"), scale=2)
        crops = PatchDataset(photographs.train, scale=2, patch=24, seed=0)
        for_weights, for_logits = split_dataset(crops, 0.5, seed=0)
        self.batches = [self._batch(for_weights, index) for index in range(8)]
        self.other_batch = self._batch(for_logits, 0)

    @staticmethod
    def _batch(crops: PatchDataset, index: int) -> tuple[Tensor, Tensor]:
        pairs = [crops[(index * BATCH + place) % len(crops)] for place in range(BATCH)]
        return torch.stack([low for low, _ in pairs]), torch.stack([high for _, high in pairs])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The task loss of a batch under the present draw."""
        return nn.functional.l1_loss(self.space(batch[0]), batch[1])

    def train(self, steps: int) -> None:
        """Let the weights learn, as in a warm-up, on photographs that the logits are not measured on."""
        optimizer = torch.optim.Adam(self.space.parameters(), 1e-3)
        for step in tqdm(range(steps), desc="training", unit="step"):
            self.strategy.context.bank.begin(0, 0, step, 1)
            with torch.no_grad():
                self.strategy.distribution.draw()
            optimizer.zero_grad()
            self.loss(self.batches[step % len(self.batches)]).backward()
            optimizer.step()

    def measure(self, title: str) -> dict[str, dict[str, float]]:
        """Variance ratios and cosines of every form."""
        found = {}
        for number, (name, options) in enumerate(tqdm(FORMS.items(), desc=title, unit="form")):
            self.strategy.context.quantization = SearchQuantization(**options)
            found[name] = self._moments(number)
        self.strategy.context.quantization = SearchQuantization()
        result = {}
        for name, (variance, operations, bits) in found.items():
            reference = found["separate, masked" if "masked" in name else "separate"]
            result[name] = {
                "variance": variance / reference[0],
                "cosine of operations": _cosine(operations, reference[1]),
                "cosine of bits": _cosine(bits, reference[2]),
            }
        return result

    def _moments(self, seed: int) -> tuple[float, Tensor, Tensor]:
        """Mean variance of the first blocks' outputs, and mean gradients of the logits of operations and of bits."""
        labels = list(self.strategy.distribution.logits)
        logits = [self.strategy.distribution.logits[label] for label in labels]
        first = next(module for module in self.space.modules() if isinstance(module, MixedSharedInput))
        outputs: list[Tensor] = []
        hook = first.register_forward_hook(lambda *call: outputs.append(torch.cat(call[2], dim=1).detach()))
        gradients = [torch.zeros_like(row) for row in logits]
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for step in range(self.draws):
            self.strategy.context.bank.begin(seed, 0, step, 0)
            self.strategy.distribution.draw()
            with frozen(self.weights):  # as in a search
                found = torch.autograd.grad(self.loss(self.other_batch), logits)
            for mean, gradient in zip(gradients, found, strict=True):
                mean += gradient
            output = outputs.pop()
            count, total, squares = count + 1, total + output, squares + output.square()
        hook.remove()
        variance = float((squares / count - (total / count).square()).mean())
        of_bits = [choice.kind == "precision" for choice in self.strategy.distribution.tree]
        parts = [
            torch.cat([gradient for gradient, bits in zip(gradients, of_bits, strict=True) if bits == wanted])
            for wanted in (False, True)
        ]
        return variance, parts[0], parts[1]


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=0))


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 draws and 20 training steps instead of 80 and 200")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 8], help="precisions to choose from")
    parser.add_argument("--json", metavar="FILE", help="file to write the figures to")
    arguments = parser.parse_args(argv)
    if arguments.json:
        check_new_file(arguments.json)
    if len(set(arguments.bits)) < 2:
        raise InputError(f"--bits {' '.join(map(str, arguments.bits))}: two different precisions are needed at least")
    torch.set_flush_denormal(True)
    fidelity = Fidelity(20 if arguments.quick else 80, arguments.bits)
    report = {"fresh weights": fidelity.measure("fresh weights")}
    fidelity.train(20 if arguments.quick else 200)
    report["trained weights"] = fidelity.measure("trained weights")
    for state, forms in report.items():
        print(state)
        rows = [{"noise": name, **{key: f"{value:.3f}" for key, value in of.items()}} for name, of in forms.items()]
        print(format_table(rows, ["noise", "variance", "cosine of operations", "cosine of bits"]))
    if arguments.json:
        write_json(report, arguments.json)


if __name__ == "__main__":
    command_line.run(main)
