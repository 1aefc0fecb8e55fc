"""Regularizers: what keeps a search from staying undecided, or logits from growing."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution, Draw

Regularizer = Literal["entropy", "l1", "exp", "none"]


def regularization(name: Regularizer, distribution: ArchitectureDistribution, draw: Draw) -> Tensor:
    """The regularizer of an architecture step, before its weight.

    Args:
        name: ``"entropy"``, the sum of the joint entropies of all blocks in nats (Shvetsov et al., "QuantNAS for Super
            Resolution", IEEE Access 12, 2024); ``"l1"``, the sum of the logits' absolute values; ``"exp"``, the sum of
            their exponentials (``l1_softmax`` in that paper's code); ``"none"``, zero.
        distribution: holds the logits.
        draw: the probabilities of the step, whose entropy is taken.

    Returns:
        A scalar, differentiable in the logits.
    """
    if name == "entropy":
        return distribution.entropy(draw)
    logits = torch.cat(list(distribution.logits.values()))
    if name == "l1":
        return logits.abs().sum()
    if name == "exp":
        return logits.exp().sum()
    return logits.new_zeros(())
