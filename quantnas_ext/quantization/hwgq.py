"""Half-wave Gaussian quantization (HWGQ): fixed steps for activations behind a ReLU.

Source: Cai et al., "Deep Learning with Low Precision by Half-wave Gaussian Quantization", CVPR 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantnas_ext.quantization.lsq import lsq_quantize
from quantnas_ext.quantization.protocol import ActivationQuantizer, register_quantizer

HWGQ_STEPS = {2: 0.6356, 3: 0.3721, 4: 0.2131, 8: 0.0203}
"""Step by number of bits, for the positive half of a Gaussian of variance 1.

The step of least squared error is 2 % larger at 2 bits; at 3, 4 and 8 bits it is 5, 9 and 19 % smaller.
"""


@register_quantizer("hwgq")
class HWGQActivationQuantizer(ActivationQuantizer):
    """``round(clamp(x / s, 0, 2^b - 1)) * s`` with the fixed step s of its bits, for inputs that are never negative.

    The gradient passes where x lies between 0 and ``(2^b - 1) s``, and is 0 elsewhere (the paper's clipped ReLU as
    backward approximation). Nothing is learned and nothing is in the state dict. Steps suit inputs of variance 1 before
    the ReLU, such as a batch norm makes; they do not follow any other range.

    Raises:
        InputError: for a width that is none of ``HWGQ_STEPS``, and for signed inputs.
    """

    step: Tensor
    learned = False
    takes_signed = False
    widths = tuple(HWGQ_STEPS)

    def __init__(self, bits: int, *, signed: bool = False) -> None:
        super().__init__(bits, signed=signed)
        self.register_buffer("step", torch.tensor(HWGQ_STEPS[bits]), persistent=False)

    def step_for(self, x: Tensor) -> Tensor:
        """The fixed step."""
        return self.step

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantized ``x``, same shape."""
        return lsq_quantize(x, self.step, self.bits, signed=False)

    def extra_repr(self) -> str:
        """What ``repr`` shows of it."""
        return f"bits={self.bits}, step={HWGQ_STEPS[self.bits]}"
