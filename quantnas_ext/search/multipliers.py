"""Lagrange multipliers, by which the search itself meets its budgets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quantnas_ext.costs.goals import Budget

UPDATES = 10.0
"""Steps of size ``stiffness`` that a multiplier takes over a whole search."""


class Multipliers(nn.Module):
    """Lagrange multipliers that hold expected costs between the floor and the maximum of their budgets.

    For ``x = E[cost] / maximum`` within ``[l, 1]`` the augmented Lagrangian is, with ``s = x + lambda / rho`` and ``P``
    the projection to the interval,

        ``rho / 2 (s - P(s))^2 - lambda^2 / (2 rho)``

    and its gradient ``rho (s - P(s))``: nothing well inside, more the farther outside. After each architecture step
    ``lambda += sigma (x - P(s))``, which is the classical update (Rockafellar, "The multiplier method of Hestenes and
    Powell applied to convex programming", 1973) in smaller steps, ``sigma = rho * UPDATES`` over the whole search.

    Args:
        budgets: the limits.
        floors: for each, the share l of the maximum that is to be used at least; 0 for none.
    """

    values: Tensor
    floors: Tensor

    def __init__(self, budgets: Sequence[Budget], floors: Sequence[float]) -> None:
        super().__init__()
        self.maxima = [budget.maximum for budget in budgets]
        self.register_buffer("values", torch.zeros(len(budgets), dtype=torch.float64))
        self.register_buffer("floors", torch.tensor(floors, dtype=torch.float64), persistent=False)
        stiffness = [budget.stiffness for budget in budgets]
        self.register_buffer("_stiffness", torch.tensor(stiffness, dtype=torch.float64), persistent=False)

    _stiffness: Tensor

    def forward(self, expected: Sequence[Tensor]) -> Tensor:
        """What the budgets add to the loss: a float64 scalar, differentiable in the expected costs."""
        excess, _ = self._excess(expected)
        return (self._stiffness / 2 * excess.square() - self.values.square() / (2 * self._stiffness)).sum()

    @torch.no_grad()
    def update(self, expected: Sequence[Tensor], share: float) -> None:
        """Let the multipliers follow the costs.

        Args:
            expected: expected costs that the last architecture step saw.
            share: that step's share of the whole search.
        """
        _, violation = self._excess(expected)
        self.values += self._stiffness * min(1.0, UPDATES * share) * violation

    def _excess(self, expected: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """``s - P(s)`` and ``x - P(s)`` of every budget."""
        x = torch.stack([cost / maximum for cost, maximum in zip(expected, self.maxima, strict=True)])
        shifted = x + self.values / self._stiffness
        nearest = torch.minimum(torch.maximum(shifted, self.floors), torch.ones_like(shifted)).detach()
        # Where the projection moves with s, their difference is zero and so is its gradient.
        outside = (shifted != nearest).to(shifted)
        return (shifted - nearest) * outside, x - nearest
