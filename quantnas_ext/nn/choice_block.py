"""The blocks that a supernet searches over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nni.nas.nn.pytorch import LayerChoice
from torch import Tensor, nn

from quantnas_ext.errors import InputError, shown


class ChoiceBlock(LayerChoice):
    """An NNI ``LayerChoice`` whose candidates share one input and are summed with their probabilities in a search.

    Candidates are given as factories, so that building a frozen network makes the chosen candidate only, and needs the
    choices of that candidate only.

    Args:
        candidates: name to a function without arguments that builds the candidate.
        label: NNI label of the choice; no ``.`` and no ``/``.

    Raises:
        InputError: without a candidate, for one that is a module already or no function, and for a function that makes
            no module.
    """

    def __init__(self, candidates: Mapping[str, Callable[[], nn.Module]], *, label: str) -> None:
        if not isinstance(candidates, Mapping) or not candidates:
            raise InputError(
                f"block {label!r} has no candidates; give a mapping of at least one name to a function, as in "
                "{'skip': lambda: nn.Identity()}"
            )
        for name, build in candidates.items():
            if isinstance(build, nn.Module):
                raise InputError(
                    f"candidate {name!r} of block {label!r} is a module; give a function that builds it, "
                    "as in `lambda: nn.Identity()`"
                )
        super().__init__({name: _built(name, build, label) for name, build in candidates.items()}, label=label)

    @classmethod
    def create_fixed_module(
        cls, sample: dict[str, Any], candidates: Mapping[str, Callable[[], nn.Module]], *, label: str
    ) -> nn.Module:
        """The chosen candidate alone, inside ``nni.nas.space.model_context(sample)``."""
        chosen = cls._inner_choice(list(candidates), None, label).freeze(sample)
        return _built(chosen, candidates[chosen], label)


def _built(name: str, build: Callable[[], nn.Module], label: str) -> nn.Module:
    """What a candidate's function makes, which has to be a module."""
    if not callable(build):
        raise InputError(f"candidate {name!r} of block {label!r} is {shown(build)}; give a function that builds it")
    module = build()
    if not isinstance(module, nn.Module):
        raise InputError(
            f"the function of candidate {name!r} of block {label!r} made {shown(module)}; let it return a module, "
            "such as nn.Identity() for none"
        )
    return module


class SharedInput(nn.Module):
    """Blocks that read the same tensor.

    Spaces declare it, so that a search may compute what the blocks have in common (activation, value range, noise)
    once.

    Args:
        blocks: modules with one tensor in and one tensor out.

    Raises:
        InputError: without a block, or for one that is no module.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        for block in blocks:
            if not isinstance(block, nn.Module):
                raise InputError(f"{shown(block)} among blocks that share an input is no module; build it first")
        if not len(blocks):
            raise InputError("blocks that share an input are none here; give at least one")
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The blocks' outputs, in their order."""
        return [block(x) for block in self.blocks]
