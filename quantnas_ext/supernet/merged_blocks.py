"""Blocks of a supernet that compute what their candidates have in common once, and single convolutions as one.

Candidates of a block read one input, so ReLU, range and noise are made once for all; and convolution is linear, so
candidates that are one convolution become one convolution with the probability-weighted sum of their kernels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantnas_ext.nn.choice_block import ChoiceBlock, SharedInput
from quantnas_ext.quantization.noise.additive import kept_for_training
from quantnas_ext.quantization.noise.convolution import SHARE, Geometry, noisy_conv2d
from quantnas_ext.quantization.noise.merged_kernels import merged_kernels
from quantnas_ext.supernet.context import SupernetContext
from quantnas_ext.supernet.layer_choice import MixedLayerChoice, SupernetModule
from quantnas_ext.supernet.layer_input import LayerInput
from quantnas_ext.supernet.merging import Candidate, Merger, merge
from quantnas_ext.supernet.mixed_layers import MixedQuantConv2d
from quantnas_ext.supernet.mixture import added, scaled

_log = logging.getLogger(__name__)

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


def _positions(candidates: Sequence[Candidate], blocks: Sequence[MixedChoiceBlock], table: Tensor) -> Positions:
    """In a table ``[choices, most values]``."""
    rows = blocks[0].context.distribution.rows
    entries = [rows[blocks[c.block].label] * table.shape[1] + c.index for c in candidates]
    of_first = [cast(MixedQuantConv2d, c.first).row for c in candidates]
    return torch.tensor(entries, device=table.device), torch.tensor(of_first, device=table.device)


def _candidates(blocks: Sequence[MixedChoiceBlock], places: Sequence[Iterable[int]]) -> list[Candidate]:
    """Of blocks that read one tensor, those of the given places in each."""
    return [
        Candidate(block, index, blocks[block][blocks[block].names[index]])
        for block, indices in enumerate(places)
        for index in indices
    ]


class _Computation(NamedTuple):
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
    def of(cls, active: Sequence[Sequence[int]], blocks: Sequence[MixedChoiceBlock], table: Tensor) -> _Computation:
        """For the places of each block's candidates."""
        candidates = _candidates(blocks, active)
        mergers, alone = merge(candidates)
        with_positions = [(merger, _positions(merger.candidates, blocks, table)) for merger in mergers]
        readers = [candidate for candidate in candidates if candidate.first is not None]
        return cls(with_positions, alone, _positions(readers, blocks, table))


class _Evaluation:
    """One forward pass of blocks that read the same tensor.

    Args:
        blocks: the blocks.
        x: the tensor.
        computations: of these blocks, so far.
    """

    def __init__(self, blocks: Sequence[MixedChoiceBlock], x: Tensor, computations: dict[Any, _Computation]) -> None:
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
                computations[key] = _Computation.of(active, blocks, draw.probabilities)
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
        layers = [cast(MixedQuantConv2d, candidate.only) for candidate in merger.candidates]
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


class MixedChoiceBlock(MixedLayerChoice):
    """Sum of all candidates' outputs, weighted with their probabilities; replaces ``ChoiceBlock``.

    Candidates that are a ReLU and a convolution are merged where that takes fewer multiplications; what begins with
    these two shares the ReLU, its range and, in direct quantization, the quantizers of its output. Hooks that a user
    has put on such candidates do not run.

    Args:
        candidates, label, context: as ``MixedLayerChoice``.
    """

    def __init__(self, candidates: Any, label: str, context: SupernetContext) -> None:
        super().__init__(candidates, label, context)
        self._computations: dict[Any, _Computation] = {}

    @classmethod
    def mutate(
        cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]
    ) -> MixedChoiceBlock | None:
        """NNI mutation hook."""
        if isinstance(module, ChoiceBlock):
            return cls(module.candidates, module.label, mutate_kwargs["context"])
        return None

    def first_layers(self) -> list[MixedQuantConv2d]:
        """The convolutions that read the block's input behind a ReLU."""
        firsts = (Candidate(0, index, self[name]).first for index, name in enumerate(self.names))
        return [first for first in firsts if first is not None]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """``sum_k p_k candidate_k(x)``."""
        outputs = None
        if len(args) == 1 and not kwargs:
            outputs = _outputs([self], args[0], self._computations)
        return super().forward(*args, **kwargs) if outputs is None else outputs[0]


class MixedSharedInput(SupernetModule, SharedInput):
    """Blocks that read the same tensor, with one ReLU, range and noise for all; replaces ``SharedInput``.

    Args:
        blocks: as ``SharedInput``.
        context: of the supernet.
    """

    def __init__(self, blocks: Sequence[nn.Module], context: SupernetContext) -> None:
        nn.Module.__init__(self)
        self.blocks = nn.ModuleList(blocks)
        self._context = (context,)
        self._computations: dict[Any, _Computation] = {}

    @classmethod
    def mutate(
        cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]
    ) -> MixedSharedInput | None:
        """NNI mutation hook."""
        if type(module) is SharedInput:
            return cls(list(module.blocks), mutate_kwargs["context"])
        return None

    def _labels(self) -> list[str]:
        return []

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """A plain ``SharedInput`` of the chosen operations, which holds nothing of the supernet."""
        shared = SharedInput(list(super().freeze(sample).blocks))
        shared.training = self.training
        return shared

    def forward(self, x: Tensor) -> list[Tensor]:
        """The blocks' outputs, in their order."""
        blocks = [block for block in self.blocks if isinstance(block, MixedChoiceBlock)]
        outputs = _outputs(blocks, x, self._computations) if len(blocks) == len(self.blocks) else None
        return SharedInput.forward(self, x) if outputs is None else outputs


def _outputs(blocks: Sequence[MixedChoiceBlock], x: Any, computations: dict[Any, _Computation]) -> list[Any] | None:
    """Outputs of blocks that read one tensor; None where each of them, and each candidate, is computed by itself."""
    if blocks[0].context.quantization.evaluation == "separate" or not isinstance(x, Tensor):
        return None
    if x.dim() == 3:  # for convolutions a sample without its batch, for recurrent and linear layers a whole one
        if not any(block.first_layers() for block in blocks):
            return None
        return [output[0] for output in _Evaluation(blocks, x[None], computations).run()]
    return _Evaluation(blocks, x, computations).run()


def _readers(model: nn.Module) -> Iterator[list[MixedChoiceBlock]]:
    """The blocks of a supernet, those that read one tensor together."""
    done: set[nn.Module] = set()
    for module in model.modules():
        blocks: list[nn.Module] = list(module.blocks) if isinstance(module, MixedSharedInput) else [module]
        if found := [block for block in blocks if isinstance(block, MixedChoiceBlock) and block not in done]:
            done.update(found)
            yield found


def share_activation_quantizers(model: nn.Module) -> None:
    """Let layers that read one tensor read it through the same activation quantizers (direct quantization)."""
    for blocks in _readers(model):
        shared = nn.ModuleDict()
        for block in blocks:
            for layer in block.first_layers():
                layer.share_quantizers(shared)


def log_unmerged(model: nn.Module) -> None:
    """Say on the debug log of each candidate of a supernet that is not computed as one convolution with others why."""
    if not _log.isEnabledFor(logging.DEBUG):
        return
    for blocks in _readers(model):
        for candidate in merge(_candidates(blocks, [range(len(block.names)) for block in blocks]))[1]:
            block = blocks[candidate.block]
            _log.debug(
                "candidate %r of block %r is computed on its own: %s",
                *(block.names[candidate.index], block.label),
                candidate.obstacle or "no other is merged with it, as that would take more multiplications",
            )
    for module in model.modules():
        if type(module) is MixedLayerChoice:
            _log.debug("candidates of block %r are computed on their own: it is no ChoiceBlock", module.label)
