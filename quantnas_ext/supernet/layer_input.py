"""The input of layers that read one tensor."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from quantnas_ext.quantization import value_range
from quantnas_ext.quantization.noise.convolution import Noise, noisy_relu
from quantnas_ext.supernet.context import SupernetContext

FULL_PRECISION = "full"
"""Name of the activation quantizer that there is none of."""


class LayerInput:
    """The input of one or several layers, with what they need of it computed once, at the first use.

    Args:
        x: the tensor in front of the activation.
        relu: whether a ReLU comes first.
        shared: whether several layers read it. A layer that alone does may compute the ReLU itself.
    """

    def __init__(self, x: Tensor, *, relu: bool = False, shared: bool = True) -> None:
        self._x = x
        self._relu = relu
        self._shared = shared
        self._plain: Tensor | None = None
        self._span: Tensor | None = None
        self._quantized: dict[str, Tensor] = {}
        self.noisy: Tensor | None = None
        """With noise that all layers share, where they do."""

    @property
    def plain(self) -> Tensor:
        """Behind the ReLU, if there is one."""
        if self._plain is None:
            self._plain = F.relu(self._x) if self._relu else self._x
        return self._plain

    @property
    def span(self) -> Tensor:
        """``max - min`` of that."""
        if self._span is None:
            self._span = value_range(self.plain)
        return self._span

    def for_fusion(self) -> tuple[Tensor, bool]:
        """What a layer that can compute the ReLU itself reads, and whether that is left to it."""
        if self.noisy is not None:
            return self.noisy, False
        if self._shared or not self._relu:
            return self.plain, False
        return self._x, True

    @property
    def serves_noise_alone(self) -> bool:
        """Whether its gradient serves the scale of the shared noise alone."""
        return self.noisy is not None and not self._x.requires_grad

    def noise(self, context: SupernetContext, scale: Tensor) -> Noise:
        """Noise for one of the layers, with a step in units of the range."""
        x, fused = self.for_fusion()
        return Noise(scale, context.bank.take(x), None if fused else self.span, of_range=fused)

    def add_noise(self, context: SupernetContext, scale: Tensor) -> None:
        """Give it noise of a step, in units of its range behind the ReLU, that all layers share."""
        noise = Noise(scale, context.bank.take(self._x), of_range=True)
        self.noisy = noisy_relu(self._x, noise, masked=context.quantization.masked)

    def quantized(self, name: str, quantizers: nn.ModuleDict) -> Tensor:
        """Quantized by the quantizer of a name; those of a name are one and the same for all layers that read it."""
        if name == FULL_PRECISION:
            return self.plain
        if name not in self._quantized:
            self._quantized[name] = quantizers[name](self.plain)
        return self._quantized[name]
