"""Costs that have been counted: a name, the input for which it was, and a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.arguments import name_among, shape
from quantnas_ext.costs.cost import Cost, sample_cost
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError, shown

_LARGEST = 1e30
_KEYS = ("name", "input", "value")
_OF_VERSION_1: dict[str, dict[str, Any]] = {
    "bitops_32": {"name": "bitops", "input": (1, 3, 32, 32)},
    "bitops_256": {"name": "bitops", "input": (1, 3, 256, 256)},
    "bytes": {"name": "bytes"},
}


@dataclass(frozen=True)
class CountedCost:
    """What a network costs, of one kind.

    Attributes:
        name: the cost's, such as ``bitops``.
        value: in the cost's unit.
        input: shape with the batch dimension of the input for which it holds; None where it holds for any.
    """

    name: str
    value: float
    input: tuple[int, ...] | None = None

    @classmethod
    def of(cls, cost: Cost, value: float) -> CountedCost:
        """A cost with its number."""
        return cls(cost.name, value, cost.input_shape if cost.depends_on_input else None)

    @property
    def place(self) -> str:
        """The input without its batch: ``32`` for colour images of 32 x 32, else as in ``1x28x28``; empty for any."""
        if self.input is None:
            return ""
        colour_image = len(self.input) == 4 and self.input[1] == 3 and self.input[2] == self.input[3]
        return str(self.input[2]) if colour_image else "x".join(map(str, self.input[1:]))

    @property
    def key(self) -> str:
        """Name and place, for files and tables: ``bitops_32``."""
        return f"{self.name}_{self.place}" if self.place else self.name


class CostCounter:
    """Counts costs of any number of architectures of a space, which is traced once for each cost.

    Args:
        space: the space.
        costs: what to count.

    Raises:
        InputError: when the space cannot be traced (see ``trace_layers``).
    """

    def __init__(self, space: ModelSpace, costs: Sequence[Cost]) -> None:
        self._tree = ChoiceTree.of(space)
        self._terms = [(cost, cost.terms(space)) for cost in costs]

    def of(self, sample: Mapping[str, Any]) -> tuple[CountedCost, ...]:
        """Costs of one architecture, in the order of ``costs``.

        Raises:
            InputError: when a label that matters is missing or has an unknown value.
        """
        complete = self._tree.complete(sample)
        return tuple(CountedCost.of(cost, sample_cost(terms, complete)) for cost, terms in self._terms)


def to_plain(costs: Sequence[CountedCost]) -> list[dict[str, Any]]:
    """As an architecture file holds them."""
    return [
        {
            "name": cost.name,
            **({"input": list(cost.input)} if cost.input else {}),
            "value": int(cost.value) if float(cost.value).is_integer() else cost.value,
        }
        for cost in costs
    ]


def from_plain(content: Any) -> tuple[CountedCost, ...]:
    """Back from a file; also from the mapping of ``bitops_32``, ``bitops_256`` and ``bytes`` of version 1.

    Raises:
        InputError: when something else stands there, a number is none that a network can cost, or one is said twice.
    """
    if isinstance(content, dict):
        for name in content:
            name_among("cost", name, _OF_VERSION_1)
        for name in _OF_VERSION_1:
            if name not in content:
                raise InputError(f"it lacks cost '{name}'; it should be a number of at least 0")
        content = [entry | {"value": content[name]} for name, entry in _OF_VERSION_1.items()]
    if not isinstance(content, list):
        raise InputError("its costs should be a list, each with a name, a value and the input for which it was counted")
    costs: list[CountedCost] = []
    for entry in content:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or "value" not in entry:
            raise InputError(f"cost {shown(entry)} should have a name and a value")
        for key in entry:
            name_among(f"key of cost '{entry['name']}'", key, _KEYS)
        value, given = entry["value"], entry.get("input")
        # The comparison also fails for nan.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LARGEST:
            raise InputError(f"cost {shown(entry['name'])} should be a number of at least 0, not {shown(value)}")
        measured = None if given is None else shape(f"the input of cost '{entry['name']}',", given)
        costs.append(CountedCost(entry["name"], value, measured))
    keys = [cost.key for cost in costs]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"cost {shown(key)} is there twice")
    return tuple(costs)
