"""A plain network as a model space of its precisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from quantnas_ext.conversion.conversion import Bits, quantize


class QuantizedSpace(ModelSpace):
    """A network whose convolutions and linear layers choose their precision.

    Args:
        model: the network, which is converted in place and whose weights are kept. As everywhere in NNI, ``simplify``,
            ``random``, ``freeze`` and ``model_context`` work on the space.
        bits, example_input, skip, fixed, share, signed: see ``quantize``.

    Attributes:
        model: the network.
        report: what was converted, and what was left and why.

    Raises:
        InputError: as ``quantize``.
    """

    def __init__(
        self,
        model: nn.Module,
        bits: Iterable[Bits],
        example_input: Any,
        *,
        skip: Iterable[str] = (),
        fixed: Mapping[str, Bits] | None = None,
        share: str | Callable[[str], str] = "layer",
        signed: str | bool = "observe",
    ) -> None:
        super().__init__()
        self.report = quantize(model, bits, example_input, skip=skip, fixed=fixed, share=share, signed=signed)
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network makes of its input."""
        return self.model(*args, **kwargs)
