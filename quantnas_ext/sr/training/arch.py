"""Found networks in BasicSR's registry of networks: ``network_g: {type: QuantNASNetwork, architecture: FILE}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from quantnas_ext import compat
from quantnas_ext.architecture import Architecture
from quantnas_ext.sr.weights.weight_loading import load_weights

compat.prepare_basicsr()
from basicsr.utils.registry import ARCH_REGISTRY  # noqa: E402


def architecture_in(file: str, precision: int | str | None) -> Architecture:
    """The architecture in a file, with every searched layer at a precision; None keeps what was found."""
    found = Architecture.load(file)
    return found if precision is None else found.with_precision(precision)


@ARCH_REGISTRY.register()
def QuantNASNetwork(  # noqa: N802 (BasicSR's options name networks like classes)
    architecture: str, precision: int | str | None = None, weights: str | None = None
) -> nn.Module:
    """Build the network of an architecture file. State dicts have the same keys as those of ``Architecture.build``.

    Args:
        architecture: path of an architecture file.
        precision: bits for every searched layer instead of the found ones, as in ``8`` or ``w4a8``; 32 is full
            precision.
        weights: path of a file with the weights of that architecture (``load_weights``), in its own precisions or in
            full precision, and with ``precision`` in any; where they are others, steps start anew and the log says so.
            None starts from new weights.

    Returns:
        ``float32 [N, 3, h, w]`` RGB in [0, 1] to ``[N, 3, s h, s w]``, with the attribute ``scale``.

    Raises:
        InputError: a file is missing, damaged or foreign, or the precision is not possible.
    """
    found = architecture_in(architecture, precision)
    network = found.build()
    if weights is not None:
        for line in load_weights(network, weights, found, other_precisions="full" if precision is None else "any"):
            logging.getLogger(__name__).warning(line)
    return network


def architecture_of(options: Mapping[str, Any]) -> Architecture | None:
    """The architecture that BasicSR's options for a network name, in their precision; None for other networks.

    Raises:
        InputError: as ``QuantNASNetwork``.
    """
    if options.get("type") != QuantNASNetwork.__name__:
        return None
    return architecture_in(options["architecture"], options.get("precision"))


def trained_network(architecture: str, weights: str) -> tuple[Any, list[str]]:
    """The network of an architecture file with its own weights (safetensors, or a ``net_g_*.pth`` of BasicSR).

    Returns:
        The network in evaluation mode, as ``QuantNASNetwork``, and what the user should know of the weights, in lines.

    Raises:
        InputError: a file is missing, damaged or foreign, or the weights are of other precisions.
    """
    found = Architecture.load(architecture)
    network = found.build().eval()
    return network, load_weights(network, weights, found)
