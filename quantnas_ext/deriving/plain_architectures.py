"""Architectures that anybody would build by hand: one operation everywhere, at one precision but for the ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quantnas_ext.deriving.ranking import ArchitectureSelector
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.quantization import Precision


def plain_architectures(
    selector: ArchitectureSelector, log_probabilities: Mapping[str, Sequence[float]], count: int
) -> list[dict[str, Any]]:
    """The architectures within the budgets that are nearest to plain ones, the nearest first.

    A plain one has one operation wherever it is offered, of those that the most blocks offer, and one precision, or the
    same with the first block, or with the first and the last, at the highest. The nearest within the budgets differs
    from it in the fewest choices; of those that differ in as many it is the most probable.

    Args:
        selector: of the space and its budgets.
        log_probabilities: for every label those of its values.
        count: most architectures; there can be fewer, as several plain ones may have the same nearest.

    Returns:
        NNI samples, each once.
    """
    tree = selector.tree
    largest = sum(max(map(abs, logs)) for logs in log_probabilities.values())
    nearest = []
    for wanted in _plain(tree):
        values = {
            choice.label: [
                # All probabilities together weigh less than one choice that differs.
                log / (1 + 2 * largest) - (wanted[choice.label] not in (None, value))
                for value, log in zip(choice.values, log_probabilities[choice.label], strict=True)
            ]
            for choice in tree
        }
        nearest.append(next(selector.ranked(values)))
    nearest.sort(key=lambda found: -found[0])
    distinct = {str(sorted(sample.items(), key=str)): sample for _, sample in nearest}
    return list(distinct.values())[:count]


def _plain(tree: ChoiceTree) -> Iterator[dict[str, Any]]:
    """What plain architectures have at every choice; None where it does not matter."""
    offered = Counter(value for choice in tree if choice.kind == "operation" for value in choice.values)
    operations = [value for value, times in offered.items() if times == max(offered.values())] or [None]
    known = {value: Precision.parse(value) for c in tree if c.kind == "precision" for value in c.values}
    bits = sorted(known, key=lambda value: known[value].weight_bits * known[value].activation_bits)
    blocks = [root.label for root in tree.roots() if not root.owners]
    block: dict[str, str] = {}  # that a choice stands in; parents come before their children
    for choice in tree:
        block[choice.label] = choice.label if choice.parent is None else block[choice.parent[0]]
    ends = [set(), {blocks[0]}, {blocks[0], blocks[-1]}]
    for operation in operations:
        for low in bits or [None]:
            for wide in ends if low not in bits[-1:] and bits else ends[:1]:
                yield {
                    choice.label: operation
                    if choice.kind == "operation" and operation in choice.values
                    else (bits[-1] if block[choice.label] in wide else low)
                    if choice.kind == "precision"
                    else None
                    for choice in tree
                }
