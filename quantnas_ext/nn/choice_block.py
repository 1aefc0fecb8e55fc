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
        InputError: without candidates, for a candidate that is no function or a module already, or a function that
            builds none.
    """

    def __init__(self, candidates: Mapping[str, Callable[[], nn.Module]], *, label: str) -> None:
        _check(candidates, label)
        super().__init__({name: _built(candidates, name, label) for name in candidates}, label=label)

    @classmethod
    def create_fixed_module(
        cls, sample: dict[str, Any], candidates: Mapping[str, Callable[[], nn.Module]], *, label: str
    ) -> nn.Module:
        """The chosen candidate alone, inside ``nni.nas.space.model_context(sample)``."""
        _check(candidates, label)
        return _built(candidates, cls._inner_choice(list(candidates), None, label).freeze(sample), label)


def _check(candidates: Mapping[str, Callable[[], nn.Module]], label: str) -> None:
    if not isinstance(candidates, Mapping) or not candidates:
        raise InputError(
            f"block {label!r} has no candidates to choose from; give a dictionary with at least one, "
            "as in `{'skip': lambda: nn.Identity()}`"
        )
    for name, build in candidates.items():
        if not isinstance(name, str) or not name or "." in name:
            raise InputError(f"block {label!r} names a candidate {name!r}; use a text without dots")
        if isinstance(build, nn.Module) or not callable(build):
            what = "a module" if isinstance(build, nn.Module) else f"a {type(build).__name__}"
            raise InputError(
                f"candidate {name!r} of block {label!r} is {what}; give a function that builds it, "
                "as in `lambda: nn.Identity()`"
            )


def _built(candidates: Mapping[str, Callable[[], nn.Module]], name: str, label: str) -> nn.Module:
    module = candidates[name]()
    if not isinstance(module, nn.Module):
        kind = "nothing (None)" if module is None else f"a {type(module).__name__}"
        raise InputError(
            f"the function of candidate {name!r} of block {label!r} returns {kind}; let it return the module it builds"
        )
    return module


class SharedInput(nn.Module):
    """Blocks that read the same tensor.

    Spaces declare it, so that a search may compute what the blocks have in common (activation, value range, noise)
    once.

    Args:
        blocks: modules with one tensor in and one tensor out.

    Raises:
        InputError: without blocks, or for one that is no module.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not len(blocks):
            raise InputError("a shared input has no blocks to read it; give at least one module")
        for index, block in enumerate(blocks):
            if not isinstance(block, nn.Module):
                raise InputError(
                    f"block {index + 1} of a shared input is a {type(block).__name__}; give modules, as ChoiceBlock"
                )
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The blocks' outputs, in their order."""
        return [block(x) for block in self.blocks]
