"""What a search is to save: penalties on costs, and budgets that the found architecture keeps."""

from __future__ import annotations

from dataclasses import dataclass

from quantnas_ext.arguments import real_number
from quantnas_ext.costs.cost import Cost
from quantnas_ext.errors import InputError, shown

FILL = 0.95
"""Share of a budget that the found architecture uses at least, where an architecture between that and it exists."""


@dataclass(frozen=True)
class Penalty:
    """A cost that is added to the task loss as ``weight * E[cost] / cost at the uniform start``.

    Attributes:
        cost: what is penalised.
        weight: eta of Shvetsov et al. (2024); negative rewards the cost.

    Raises:
        InputError: when the cost is none, or the weight no finite number.
    """

    cost: Cost
    weight: float

    def __post_init__(self) -> None:
        if not isinstance(self.cost, Cost):
            raise InputError(f"{shown(self.cost)} is no cost to penalise; give one such as BitOps((1, 3, 32, 32))")
        weight = real_number(f"the weight of a penalty on {self.cost.name},", self.weight)
        object.__setattr__(self, "weight", weight)


@dataclass(frozen=True)
class Budget:
    """A limit on a cost that the found architecture keeps, and uses to 95 % at least where that is possible.

    Attributes:
        cost: what is limited.
        maximum: most that the found architecture may cost, in the cost's unit.

    Raises:
        InputError: for a maximum that is not a positive number, or what is no cost.
    """

    cost: Cost
    maximum: float

    def __post_init__(self) -> None:
        if not isinstance(self.cost, Cost):
            raise InputError(f"{shown(self.cost)} is no cost to limit; give one such as BitOps((1, 3, 32, 32))")
        object.__setattr__(self, "maximum", real_number("the budget", self.maximum, above=0))
