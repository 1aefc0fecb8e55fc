"""How quantization shows during a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantnas_ext.quantization.noise.additive import NoiseDistribution, NoiseMixture

Mode = Literal["noise", "direct", "direct_separate", "none"]
Evaluation = Literal["exact", "fast", "separate"]


@dataclass(frozen=True)
class SearchQuantization:
    """How a supernet imitates quantization, and how it computes its blocks: checked ``StrategyOptions``.

    Attributes:
        mode: ``"noise"``: additive noise of the size of the rounding error. ``"direct"``: every precision is computed
            with quantizers of its own and mixed, all precisions sharing one weight. ``"direct_separate"``: the
            same with a weight for every precision. ``"none"``: full precision.
        noise: ``"uniform"`` (the error of an ideal quantizer) or ``"gaussian"`` (the paper's code).
        mixture: ``"rss"`` or ``"power"``, see ``mixture_noise_scale``.
        masked: no noise on zero activations, which a quantizer leaves exact.
        evaluation: of blocks whose candidates read one input (``ChoiceBlock``, ``SharedInput``). ``"exact"``:
            candidates that are one convolution become one, and a second convolution, of the noise, gives each its own
            scale; mean and variance are those of separate candidates. ``"fast"``: one noise scale for all that read the
            input, see ``block_noise_scale``. ``"separate"``: one candidate after the other, each with its own noise.
    """

    mode: Mode = "noise"
    noise: NoiseDistribution = "uniform"
    mixture: NoiseMixture = "rss"
    masked: bool = False
    evaluation: Evaluation = "exact"
