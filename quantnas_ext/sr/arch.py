"""Found networks in BasicSR's registry of networks: `network_g: {type: QuantNASNetwork, architecture: FILE}`."""

from __future__ import annotations

from torch import nn

from quantnas_ext import compat
from quantnas_ext.architecture import Architecture
from quantnas_ext.sr.weights import load_weights

compat.prepare_basicsr()
from basicsr.utils.registry import ARCH_REGISTRY  # noqa: E402

__all__ = ["QuantNASNetwork"]


@ARCH_REGISTRY.register()
def QuantNASNetwork(  # noqa: N802 (BasicSR's options name networks like classes)
    architecture: str, precision: int | str | None = None, weights: str | None = None
) -> nn.Module:
    """Build the network of an architecture file. State dicts have the same keys as those of `Architecture.build`.

    Args:
        architecture: Path of an architecture file.
        precision: Bits for every searched layer instead of the found ones, as in `8` or `w4a8`; 32 is full precision.
        weights: Path of a safetensors file with the weights of that architecture, in its found precisions or in full
            precision (`load_weights`); None starts from new weights.

    Returns:
        `float32 [N, 3, h, w]` RGB in [0, 1] to `[N, 3, s h, s w]`, with the attribute `scale`.

    Raises:
        InputError: A file is missing, damaged or foreign, or the precision is not possible.
    """
    found = Architecture.load(architecture)
    network = (found if precision is None else found.with_precision(precision)).build()
    if weights is not None:
        load_weights(network, weights, found, same_precision=precision is None)
    return network
