"""A block that is repeated a searched number of times."""

from __future__ import annotations

from typing import Any, Self

from nni.mutable import Categorical
from nni.nas.nn.pytorch import Repeat

from quantnas_ext.supernet.context import SupernetContext
from quantnas_ext.supernet.layer_choice import SupernetModule
from quantnas_ext.supernet.mixture import added, scaled


class MixedRepeat(SupernetModule, Repeat):
    """Sum of what comes out at every depth, weighted with the depths' probabilities; replaces NNI's ``Repeat``.

    A depth of 0 is the input itself, which NNI's own supernet leaves out of the sum.

    Args:
        repeat: whose blocks it takes over.
        context: of the supernet.
    """

    def __init__(self, repeat: Repeat, context: SupernetContext) -> None:
        super().__init__(list(repeat.blocks), repeat.depth_choice)
        self._context = (context,)

    @classmethod
    def replacing(cls, module: Any, name: str, context: SupernetContext) -> Self | None:
        """For a plain ``Repeat`` whose depth is one of some values."""
        searched = type(module) is Repeat and isinstance(module.depth_choice, Categorical)
        return cls(module, context) if searched else None

    def forward(self, x: Any) -> Any:
        """``sum_d p_d block_d(... block_1(x))`` over the depths that the present draw evaluates."""
        probabilities = self.draw[self.label].unbind()
        depths = {self.depth_choice.values[index]: index for index in self.draw.active(self.label)}
        total = None
        for depth in range(max(depths) + 1):
            if depth:
                x = self.blocks[depth - 1](x)
            if depth in depths:
                name = f"depth {depth} of {str(self.label)!r}"
                output = scaled(x, probabilities[depths[depth]], name)
                total = output if total is None else added(total, output, name)
        return total

    def _labels(self) -> list[str]:
        return [str(self.label)]
