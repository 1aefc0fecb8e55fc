"""The blocks that a supernet searches over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nni.nas.nn.pytorch import LayerChoice
from torch import Tensor, nn

from quantnas_ext.errors import InputError


class ChoiceBlock(LayerChoice):
    """An NNI ``LayerChoice`` whose candidates share one input and are summed with their probabilities in a search.

    Candidates are given as factories, so that building a frozen network makes the chosen candidate only, and needs the
    choices of that candidate only.

    Args:
        candidates: name to a function without arguments that builds the candidate.
        label: NNI label of the choice; no ``.`` and no ``/``.

    Raises:
        InputError: for a candidate that is a module already.
    """

    def __init__(self, candidates: Mapping[str, Callable[[], nn.Module]], *, label: str) -> None:
        for name, build in candidates.items():
            if isinstance(build, nn.Module):
                raise InputError(
                    f"candidate {name!r} of block {label!r} is a module; give a function that builds it, "
                    "as in `lambda: nn.Identity()`"
                )
        super().__init__({name: build() for name, build in candidates.items()}, label=label)

    @classmethod
    def create_fixed_module(
        cls, sample: dict[str, Any], candidates: Mapping[str, Callable[[], nn.Module]], *, label: str
    ) -> nn.Module:
        """The chosen candidate alone, inside ``nni.nas.space.model_context(sample)``."""
        return candidates[cls._inner_choice(list(candidates), None, label).freeze(sample)]()


class SharedInput(nn.Module):
    """Blocks that read the same tensor.

    Spaces declare it, so that a search may compute what the blocks have in common (activation, value range, noise)
    once.

    Args:
        blocks: modules with one tensor in and one tensor out.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The blocks' outputs, in their order."""
        return [block(x) for block in self.blocks]
