"""How large inputs have to be: checked before a search, a training or a folder of images begins."""

from __future__ import annotations

from torch import nn

from quantnas_ext.errors import InputError

SR_COST_INPUTS = ((1, 3, 32, 32), (1, 3, 256, 256))
"""Inputs for which BitOps of super-resolution are reported: those of Shvetsov et al. (2024), and a larger one."""


def smallest_side(network: nn.Module) -> int:
    """Pixels that either side of a low-resolution input needs: the network's or space's ``smallest_side``, else 1."""
    return int(getattr(network, "smallest_side", 1))


def check_input_side(network: nn.Module, side: int, what: str) -> None:
    """Refuse an input that a network of this space would refuse at its first forward pass.

    Args:
        network: model space, or a network built from one.
        side: the input's smaller side, pixels.
        what: names the input, as it reads at the start of a sentence.

    Raises:
        InputError: when the side is below ``smallest_side(network)``.
    """
    least = smallest_side(network)
    if side < least:
        raise InputError(f"{what} is too small for this network; give at least {least} pixels a side")
