"""What every layer of an architecture costs, and which share of the whole that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.tracing import trace_layers
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.quantization import Precision


@dataclass(frozen=True)
class LayerCost:
    """One convolution or linear layer.

    Attributes:
        path: its place in the space.
        block: label of the choice block that it is in; empty for a layer outside of all.
        operation: candidate that it is part of, as chosen; empty outside of blocks.
        precision: its bits.
        searched: whether its precision was the search's to choose.
        macs: multiply-accumulates for one input.
        bitops: ``macs * weight bits * activation bits``.
        share: of the BitOps of the whole network, from 0 to 1.
    """

    path: str
    block: str
    operation: str
    precision: Precision
    searched: bool
    macs: int
    bitops: float
    share: float


def layer_costs(
    space: ModelSpace, tree: ChoiceTree, choices: Mapping[str, Any], input_shape: tuple[int, ...]
) -> list[LayerCost]:
    """The layers of one architecture that multiply, in the order of the space, fixed ones included.

    Args:
        space: the space.
        tree: its choices.
        choices: the architecture.
        input_shape: of the input for which is counted, with its batch dimension.

    Raises:
        InputError: when the space cannot be traced, or a choice is missing.
    """
    made = tree.complete(choices)
    cost = BitOps(input_shape)
    order = {choice.label: index for index, choice in enumerate(tree)}
    found = []
    for layer in trace_layers(space, input_shape):
        if not layer.macs or not all(_has(made, label, value) for label, value in layer.context):
            continue
        for chosen, precision in layer.precisions.items():
            if all(_has(made, label, value) for label, value in chosen):
                # From the outside in: parents come before their children in the tree.
                above = sorted(layer.context, key=lambda context: order[context[0]])
                block = above[0][0] if above else ""
                operation = " / ".join(str(value) for _, value in above)
                found.append((layer, block, operation, precision, bool(chosen), cost.layer_cost(layer, precision)))
    total = sum(entry[-1] for entry in found) or 1.0
    return [
        LayerCost(layer.path, block, operation, precision, searched, layer.macs, bitops, bitops / total)
        for layer, block, operation, precision, searched, bitops in found
    ]


def _has(made: Mapping[str, Any], label: str, value: Any) -> bool:
    """Whether an architecture makes a choice, perhaps beside others of the same label."""
    if label not in made:
        return False
    chosen = made[label]
    return value in chosen if isinstance(chosen, list) and not isinstance(value, list) else bool(chosen == value)
