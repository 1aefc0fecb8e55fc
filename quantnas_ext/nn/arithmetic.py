"""Where tensors of several layers meet: additions, products and concatenations as modules.

A network on integers has to bring their inputs to one step, and finds them as it finds layers: one module for every
place. They have no state and compute what ``+``, ``*`` and ``torch.cat`` do, bit for bit. (torch has them too, with
statistics of their outputs attached: ``torch.ao.nn.quantized.FloatFunctional``.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Add", "Concatenate", "Multiply"]


class Add(nn.Module):
    """``x + y``, entry by entry."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two shapes that broadcast to the one that comes out."""
        return x + y


class Multiply(nn.Module):
    """``x * y``, entry by entry."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two shapes that broadcast to the one that comes out."""
        return x * y


class Concatenate(nn.Module):
    """Tensors behind one another along their channels."""

    def forward(self, *parts: Tensor) -> Tensor:
        """``[N, C_i, ...]`` to ``[N, sum of C_i, ...]``."""
        return torch.cat(parts, dim=1)
