"""Quantization-aware neural architecture search on NNI.

The names below are imported on first use, so that importing the package costs neither NNI nor Lightning nor BasicSR.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# A thread that waits for others sleeps rather than spins: beside other work spinning costs many times what it saves.
# OpenMP reads this when torch is loaded, so the recipes import this package first. Who has set one of them decides.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")

_HOMES = {
    "AccelerateEvaluator": "search",
    "Architecture": "architecture",
    "BitOps": "costs.cost",
    "BitOpsProfiler": "costs.profiler",
    "Budget": "costs.goals",
    "ChoiceBlock": "nn",
    "InputError": "errors",
    "LatencyTable": "costs.latency.table",
    "MutableQuantConv2d": "nn",
    "MutableQuantLinear": "nn",
    "ParameterBytes": "costs.cost",
    "Penalty": "costs.goals",
    "Precision": "quantization",
    "QuantConv2d": "quantization",
    "QuantLinear": "quantization",
    "QuantNAS": "search",
    "SRBasicSpace": "spaces",
    "SharedInput": "nn",
}

__all__ = list(_HOMES)  # noqa: PLE0605 (the table above is the one list)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
