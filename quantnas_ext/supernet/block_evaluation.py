"""One forward pass of blocks that read one tensor: what their candidates have in common is computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from quantnas_ext.quantization.noise.additive import kept_for_training
from quantnas_ext.quantization.noise.convolution import SHARE, Geometry, noisy_conv2d
from quantnas_ext.quantization.noise.merged_kernels import merged_kernels
from quantnas_ext.supernet.layer_choice import MixedLayerChoice
from quantnas_ext.supernet.layer_input import LayerInput
from quantnas_ext.supernet.merging import Candidate, Merger, merge
from quantnas_ext.supernet.mixed_layers import MixedQuantConv2d
from quantnas_ext.supernet.mixture import added, scaled

EQUALISER = 1e-12
"""Added to probabilities: nothing to such as count, and the same weight for all where none does."""

MOST_COMPUTATIONS = 256
"""Plans that are kept for the candidates that draws evaluate."""


def block_noise_scale(probabilities: Tensor, scales: Tensor) -> Tensor:
    """One noise step for several candidates: ``sqrt(sum_k p_k^2 s_k^2 / sum_k p_k^2)``.

    Candidates with kernels of the same energy that do not correlate then have, as a mixture, the output variance of
    candidates with noise of their own. Training makes kernels correlate: see docs/benchmarks.md for how far it is off.

    Args:
        probabilities: ``[K]`` of the candidates. Where all are zero (or too small to be squared) they count alike: the
            noise reaches no output then, but straight-through gradients read the candidates' outputs.
        scales: ``[K]``, their own steps.

    Returns:
        A scalar, differentiable in both.
    """
    weights = probabilities + EQUALISER
    return torch.linalg.vector_norm(weights * scales) / torch.linalg.vector_norm(weights)


def noise_samples(batch: int) -> int:
    """How many samples of a batch get input noise of their own from a merged kernel: a quarter or less, a divisor.

    The noise of a merged kernel is a convolution of its own. Its distribution is the same for every sample, so others
    can have the same noise again at no cost.
    """
    return max(count for count in range(1, -(-batch // SHARE) + 1) if batch % count == 0)


Positions = tuple[Tensor, Tensor]
"""Where the tables of the distribution keep what candidates need that begin with a convolution: entries of their
probabilities, in the flattened table, and rows of the precisions of these convolutions."""


def _positions(candidates: Sequence[Candidate], blocks: Sequence[MixedLayerChoice], table: Tensor) -> Positions:
    """In a table ``[choices, most values]``."""
    rows = blocks[0].context.distribution.rows
    entries = [rows[blocks[c.block].label] * table.shape[1] + c.index for c in candidates]
    of_first = [cast(MixedQuantConv2d, c.first).row for c in candidates]
    return torch.tensor(entries, device=table.device), torch.tensor(of_first, device=table.device)


def candidates_of(blocks: Sequence[MixedLayerChoice], places: Sequence[Iterable[int]]) -> list[Candidate]:
    """Of blocks that read one tensor, those of the given places in each."""
    return [
        Candidate(block, index, blocks[block][blocks[block].names[index]])
        for block, indices in enumerate(places)
        for index in indices
    ]


class Computation(NamedTuple):
    """How the candidates that a draw evaluates are computed.

    Attributes:
        mergers: several as one, each with the positions of its candidates.
        alone: one by one.
        readers: positions of all that begin with a ReLU and a convolution.
    """

    mergers: list[tuple[Merger, Positions]]
    alone: list[Candidate]
    readers: Positions

    @classmethod
    def of(cls, active: Sequence[Sequence[int]], blocks: Sequence[MixedLayerChoice], table: Tensor) -> Computation:
        """For the places of each block's candidates."""
        candidates = candidates_of(blocks, active)
        mergers, alone = merge(candidates)
        with_positions = [(merger, _positions(merger.candidates, blocks, table)) for merger in mergers]
        readers = [candidate for candidate in candidates if candidate.first is not None]
        return cls(with_positions, alone, _positions(readers, blocks, table))


class Evaluation:
    """One forward pass of blocks that read the same tensor.

    Args:
        blocks: the blocks.
        x: the tensor.
        computations: of these blocks, so far.
    """

    def __init__(self, blocks: Sequence[MixedLayerChoice], x: Tensor, computations: dict[Any, Computation]) -> None:
        self.blocks = blocks
        self.context = blocks[0].context
        self.x = x
        self.source = LayerInput(x, relu=True)
        draw = self.context.draw
        active = tuple(draw.active(block.label) for block in blocks)
        key = active, draw.probabilities.device
        if key not in computations:
            if len(computations) == MOST_COMPUTATIONS:  # dropout needs a new one for nearly every draw
                computations.clear()
            with kept_for_training():
                computations[key] = Computation.of(active, blocks, draw.probabilities)
        self.computation = computations[key]
        self.table = draw.probabilities.flatten()
        self.probabilities = [draw[block.label].unbind() for block in blocks]
        self.outputs: dict[int, Any] = {}
        self.noisy = blocks[0].training and self.context.quantization.mode == "noise"

    def run(self) -> list[Any]:
        """The blocks' outputs."""
        if self.noisy and self.context.quantization.evaluation == "fast":
            self._share_noise()
        for merger, positions in self.computation.mergers:
            self._add_merged(merger, positions)
        for candidate in self.computation.alone:
            self._add(candidate.block, self._on_its_own(candidate), candidate.index)
        return [self.outputs[block] for block in range(len(self.blocks))]

    def _add(self, block: int, output: Any, index: int) -> None:
        if block in self.outputs:
            output = added(self.outputs[block], output, self._name(block, index))
        self.outputs[block] = output

    def _name(self, block: int, index: int) -> str:
        whole = self.blocks[block]
        return f"candidate {whole.names[index]!r} of block {str(whole.label)!r}"

    def _on_its_own(self, candidate: Candidate) -> Any:
        """A candidate's output times its probability.

        Without a gradient of the probability that goes to the last kernel, which is smaller than the output. With one,
        the gradient would take a convolution more there.
        """
        p, first, rest = self.probabilities[candidate.block][candidate.index], candidate.first, candidate.rest
        if first is None:
            return scaled(candidate.module(self.x), p, self._name(candidate.block, candidate.index))
        if not rest:
            return p * first.compute(self.source) if p.requires_grad else first.compute(self.source, p)
        x = first.compute(self.source)
        for layer, relu in rest[:-1]:
            x = layer.compute(LayerInput(x, relu=relu, shared=False)) if relu else layer(x)
        layer, relu = rest[-1]
        if isinstance(layer, MixedQuantConv2d):
            source = LayerInput(x, relu=relu, shared=False)
            return p * layer.compute(source) if p.requires_grad else layer.compute(source, p)
        return scaled(layer(x), p, self._name(candidate.block, candidate.index))

    def _share_noise(self) -> None:
        """One noisy input for all that begin with a ReLU and a convolution."""
        entries, rows = self.computation.readers
        if len(rows):
            scales = self.context.noise_scales().table[1].index_select(0, rows)
            probabilities = self.table.index_select(0, entries)
            self.source.add_noise(self.context, block_noise_scale(probabilities, scales))

    def _add_merged(self, merger: Merger, positions: Positions) -> None:
        layers = merger.layers
        entries, rows = positions
        probabilities = self.table.index_select(0, entries)
        if layers[0].direct:
            output = self._direct(merger, layers)
        elif self.noisy:
            output = self._noise(merger, layers, probabilities, rows)
        else:
            (kernel,) = merged_kernels(
                merger.shape, merger.placements, [layer.weight for layer in layers], probabilities[None]
            )
            output = self._convolve(self.source.plain, kernel, merger)
        for block, start in merger.starts.items():
            members = zip(merger.candidates, layers, strict=True)
            index, width = next((c.index, layer.out_channels) for c, layer in members if c.block == block)
            self._add(block, output if width == output.shape[1] else output.narrow(1, start, width), index)

    def _noise(self, merger: Merger, layers: Sequence[MixedQuantConv2d], probabilities: Tensor, rows: Tensor) -> Tensor:
        """One noise for the merged kernel; for the input, if it has none, a convolution of noise alone.

        The second kernel has a scale for every candidate in it, and each takes the noise with a random sign. So the
        noises of two candidates do not correlate, and the variance of the sum is that of candidates with noise of their
        own, but for the products of both noises, which are left out.
        """
        context, source = self.context, self.source
        of_weights, of_inputs = context.noise_scales().table.index_select(1, rows)
        spans = torch.stack([layer.weight_span() for layer in layers])
        weights = [layer.weight for layer in layers]
        factors = probabilities[None]
        if source.noisy is None:
            signs = context.bank.take(probabilities).sign()
            factors = torch.stack([probabilities, probabilities * signs * of_inputs * source.span])
        kernel, *noise_kernels = merged_kernels(merger.shape, merger.placements, weights, factors)
        kernel = merger.cells(kernel).add_noise(kernel, context.bank.take(kernel), probabilities * of_weights * spans)
        if source.noisy is not None:
            geometry = Geometry(padding=merger.padding, groups=merger.shape.groups)
            return noisy_conv2d(source.noisy, kernel, None, geometry, estimated=source.serves_noise_alone, noisy=True)
        output = self._convolve(source.plain, kernel, merger)
        if context.quantization.masked:
            unit = context.bank.take(source.plain) * (source.plain != 0)
        else:
            unit = context.bank.take(source.plain[: noise_samples(len(output))])
        if unit.dtype != source.plain.dtype:
            unit = unit.to(source.plain.dtype)
        of_noise = self._convolve(unit, noise_kernels[0], merger)
        return (output.unflatten(0, (-1, len(unit))) + of_noise).flatten(0, 1)

    def _direct(self, merger: Merger, layers: Sequence[MixedQuantConv2d]) -> Tensor:
        """A convolution for every precision of the activations, with the weighted sum of quantized kernels."""
        by_quantizer: dict[str, list[tuple[int, Tensor, Tensor]]] = {}
        for place, (candidate, layer) in enumerate(zip(merger.candidates, layers, strict=True)):
            for name, weighted in layer.direct_kernels().items():
                for p, kernel in weighted:
                    of_candidate = self.probabilities[candidate.block][candidate.index]
                    by_quantizer.setdefault(name, []).append((place, of_candidate * p, kernel))
        output: Any = 0
        for name, terms in by_quantizer.items():
            places, factors, kernels = zip(*terms, strict=True)
            placements = [merger.placements[place] for place in places]
            (kernel,) = merged_kernels(merger.shape, placements, kernels, torch.stack(factors)[None])
            quantized = self.source.quantized(name, layers[places[0]].activation_quantizers)
            output = output + self._convolve(quantized, kernel, merger)
        return cast(Tensor, output)

    @staticmethod
    def _convolve(x: Tensor, kernel: Tensor, merger: Merger) -> Tensor:
        return F.conv2d(x, kernel, padding=merger.padding, groups=merger.shape.groups)
