"""Blocks of a supernet that compute what their candidates have in common once, and single convolutions as one.

Candidates of a block read one input, so ReLU, range and noise are made once for all; and convolution is linear, so
candidates that are one convolution become one convolution with the probability-weighted sum of their kernels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Self

from torch import Tensor, nn

from quantnas_ext.nn.choice_block import ChoiceBlock, SharedInput
from quantnas_ext.supernet.block_evaluation import Computation, Evaluation, candidates_of
from quantnas_ext.supernet.context import SupernetContext
from quantnas_ext.supernet.layer_choice import MixedLayerChoice, SupernetModule
from quantnas_ext.supernet.merging import Candidate, merge
from quantnas_ext.supernet.mixed_layers import MixedQuantConv2d

_log = logging.getLogger(__name__)


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
        self._computations: dict[Any, Computation] = {}

    @classmethod
    def replacing(cls, module: Any, name: str, context: SupernetContext) -> Self | None:
        """For a ``ChoiceBlock``."""
        return cls(module.candidates, module.label, context) if isinstance(module, ChoiceBlock) else None

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
        self._computations: dict[Any, Computation] = {}

    @classmethod
    def replacing(cls, module: Any, name: str, context: SupernetContext) -> Self | None:
        """For a plain ``SharedInput``."""
        return cls(list(module.blocks), context) if type(module) is SharedInput else None

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


def _outputs(blocks: Sequence[MixedChoiceBlock], x: Any, computations: dict[Any, Computation]) -> list[Any] | None:
    """Outputs of blocks that read one tensor; None where each of them, and each candidate, is computed by itself."""
    if blocks[0].context.quantization.evaluation == "separate" or not isinstance(x, Tensor):
        return None
    if x.dim() == 3:  # for convolutions a sample without its batch, for recurrent and linear layers a whole one
        if not any(block.first_layers() for block in blocks):
            return None
        return [output[0] for output in Evaluation(blocks, x[None], computations).run()]
    return Evaluation(blocks, x, computations).run()


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
        for candidate in merge(candidates_of(blocks, [range(len(block.names)) for block in blocks]))[1]:
            block = blocks[candidate.block]
            _log.debug(
                "candidate %r of block %r is computed on its own: %s",
                *(block.names[candidate.index], block.label),
                candidate.obstacle or "no other is merged with it, as that would take more multiplications",
            )
    for module in model.modules():
        if type(module) is MixedLayerChoice:
            _log.debug("candidates of block %r are computed on their own: it is no ChoiceBlock", module.label)
