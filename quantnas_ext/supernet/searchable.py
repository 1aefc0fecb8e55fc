"""Spaces that a differentiable search would not search, or not as they seem to say."""

from __future__ import annotations

from nni.nas.nn.pytorch import Cell, LayerChoice
from torch import nn

from quantnas_ext.errors import InputError
from quantnas_ext.nn.mutable_layers import searched_precision
from quantnas_ext.notices import notice
from quantnas_ext.quantization.layers import QuantizedLayer


def refuse_unsearchable(space: nn.Module) -> None:
    """Complain of modules that NNI's conversion to a supernet would leave out of the search without a word.

    Raises:
        InputError: for NNI's cells, which choose by logits of their own and build their operations anew when they are
            frozen; for a module with a choice that stands in two places, of which one would not be searched.
    """
    places: dict[nn.Module, list[str]] = {}
    for path, module in space.named_modules(remove_duplicate=False):
        if isinstance(module, Cell):
            raise InputError(
                f"module {path!r} is an NNI Cell, which chooses by logits of its own that this search does not see; "
                "write its operations as a LayerChoice, or search the space with a multi-trial strategy of NNI"
            )
        if isinstance(module, LayerChoice) or searched_precision(module) is not None:
            places.setdefault(module, []).append(path)
    for module, paths in places.items():
        if len(paths) > 1:
            raise InputError(
                f"one module ({type(module).__name__}) stands in {len(paths)} places, {paths[0]!r} and {paths[1]!r}, "
                "and would be searched in one of them alone; hold it in one place and call it from there, or give "
                "each place a module of its own with the same labels"
            )


def note_unquantized(space: nn.Module) -> None:
    """Tell the user where no layer of a space has a precision to choose."""
    plain = [
        path
        for path, module in space.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and not isinstance(module, QuantizedLayer)
    ]
    searched = any(searched_precision(module) is not None for module in space.modules())
    if plain and not searched:
        notice(
            f"no layer of {type(space).__name__} has a precision to choose, so its {len(plain)} layers (such as "
            f"{plain[0]!r}) are searched at 32 bits; quantnas_ext.quantize(space, bits, example_input) gives them some"
        )
