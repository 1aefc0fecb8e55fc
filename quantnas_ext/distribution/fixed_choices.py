"""Deciding some blocks of a space beforehand, so that a search decides the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from quantnas_ext.arguments import name_among
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError, unknown_name


def fix_choices(space: ModelSpace, choices: Mapping[str, str]) -> None:
    """Put the chosen candidates in the place of their blocks; what they choose themselves stays to be searched.

    With all operations fixed, the precisions of the chosen operations are what a search is left with. The sample that
    it finds makes, together with ``choices``, a sample of the space as it was.

    Args:
        space: changed in place. Its blocks of these labels disappear, with all their candidates but one.
        choices: label of a ``ChoiceBlock`` or ``LayerChoice`` to the name of its candidate.

    Raises:
        InputError: for a label that no block has, or a name that is not among its candidates; the space is then as it
            was.
    """
    blocks = {str(module.label): module for module in space.modules() if isinstance(module, LayerChoice)}
    for label, value in choices.items():
        names = blocks[name_among("block", label, blocks)].names
        if value not in names:
            raise unknown_name(f"candidate of block {label!r}:", value, names)
    _replace(space, choices)


def fix_operations(space: ModelSpace, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Fix all operations of a space as an architecture has them, so that only precisions are left.

    Args:
        space: changed in place, see ``fix_choices``.
        choices: those of an architecture whose blocks have the same labels; its precisions do not matter.

    Returns:
        The operations by label.

    Raises:
        InputError: as ``fix_choices``, when a block has no operation among ``choices``, or when no precision is left
            to choose.
    """
    precisions = {choice.label for choice in ChoiceTree.of(space) if choice.kind == "precision"}
    operations = {label: value for label, value in choices.items() if label not in precisions}
    fix_choices(space, operations)
    for choice in ChoiceTree.of(space):
        if choice.kind != "precision":
            raise InputError(
                f"the architecture has no operation for block {choice.label!r}; "
                "take one of a space with the same blocks"
            )
    return operations


def _replace(module: nn.Module, choices: Mapping[str, str]) -> None:
    # Not named_children, which leaves out the second place of a module that stands in two.
    for name, child in list(module._modules.items()):
        while isinstance(child, LayerChoice) and child.label in choices:
            child = child[choices[child.label]]
            module._modules[name] = child
        if child is not None:
            _replace(child, choices)
