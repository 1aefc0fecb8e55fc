"""The discretisation gap: how the derived network scores beside the supernet that it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from quantnas_ext.deriving.calibration import calibrate, score
from quantnas_ext.quantization import set_quantization
from quantnas_ext.search.strategy import QuantNAS

Metric = Callable[[Tensor, Tensor], Tensor]


def derive_and_score(
    strategy: QuantNAS,
    calibration: Iterable[Sequence[Tensor]],
    validation: Iterable[Sequence[Tensor]],
    metrics: dict[str, Metric],
    sample: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, dict[str, dict[str, float]]]:
    """Derive a network, make it ready, and measure what was lost on the way, step by step.

    Args:
        strategy: after its search.
        calibration: batches for ``calibrate``; can be gone through twice.
        validation: batches of inputs and targets to score on; can be gone through three times.
        metrics: by name, functions of outputs and targets that give a scalar.
        sample: the architecture, an NNI sample; the most probable one by default.

    Returns:
        The derived network with the supernet's weights, calibrated; and the scores by metric of

        * ``supernet``: the mixture of all candidates with the distribution's own probabilities, without quantization
          noise (where a search quantizes directly, it does so here);
        * ``full_precision``: the found operations alone, with the supernet's weights and batch norm statistics and
          without any quantization: where a search has noise, what the supernet gives when all probability is on them;
        * ``derived``: the network that is returned, in its found precisions.

        From the first to the second is what deciding costs, from the second to the third what rounding costs and
        calibration mends.

    Raises:
        InputError: when there are no batches.
        RuntimeError: before a search.
    """
    supernet = strategy.supernet
    device = next(iter(strategy.distribution.parameters())).device
    strategy.distribution.settle()
    scores = {"supernet": score(supernet, validation, metrics)}
    network = strategy.derive(sample).to(device)
    set_quantization(network, False)
    scores["full_precision"] = score(network, validation, metrics)
    set_quantization(network, True)
    calibrate(network, calibration)
    scores["derived"] = score(network, validation, metrics)
    return network, scores
