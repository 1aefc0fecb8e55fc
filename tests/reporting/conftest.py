"""A made-up search history with the shape of a real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

HEAD = ["conv_3x3", "conv_5x5", "conv_3x3_g3", "conv_5x5_g3"]
BODY = ["fac_5x5", "fac_3x3", "conv_3x3", "conv_5x5"]
SKIP = ["conv_1x1", "conv_3x3", "conv_5x5", "skip_connect"]
TAIL = ["conv_1x1", "conv_3x3", "conv_5x5", "conv_5x5_g3", "conv_3x3_g3"]
BASIC_BLOCKS = {
    "head_0": HEAD,
    "head_1": HEAD,
    "body_0": BODY,
    "body_1": BODY,
    "body_skip": SKIP,
    "upsample_0": HEAD,
    "tail_0": TAIL,
    "tail_1": TAIL,
}


def _softmax(logits: np.ndarray) -> list[float]:
    exponentials = np.exp(logits - logits.max())
    return (exponentials / exponentials.sum()).tolist()


def _entropy(probabilities: list[float]) -> float:
    return -sum(p * float(np.log(p)) for p in probabilities)


def _joint_entropy(block: str, operations: list[str], probabilities: dict[str, list[float]]) -> float:
    """H(op) + sum p(op) H(bits | op), where an operation without bits adds nothing."""
    bits = [_entropy(probabilities.get(f"{block}__{operation}__bits", [1.0])) for operation in operations]
    return _entropy(probabilities[block]) + sum(p * h for p, h in zip(probabilities[block], bits, strict=True))


def make_history(
    blocks: dict[str, list[str]], *, precisions: tuple[Any, ...] = (4, 8), epochs: int = 20, seed: int = 0
) -> dict[str, Any]:
    """Logits that drift at random with growing certainty; ``skip_connect`` has no precision."""
    random = np.random.default_rng(seed)
    labels: dict[str, Any] = {}
    for block, operations in blocks.items():
        labels[block] = {"values": operations, "parent": None}
        for operation in operations:
            if operation != "skip_connect":
                labels[f"{block}__{operation}__bits"] = {"values": list(precisions), "parent": [block, operation]}
    logits = {label: np.zeros(len(description["values"])) for label, description in labels.items()}
    drift = {label: random.normal(size=len(values)) for label, values in logits.items()}
    entries = []
    for epoch in range(epochs + 1):
        probabilities = {label: _softmax(values) for label, values in logits.items()}
        trained = epoch > 0
        entries.append(
            {
                "epoch": epoch,
                "step": 50 * epoch,
                "probabilities": probabilities,
                "train_loss": 0.03 + 0.1 * np.exp(-epoch / 4) + 0.002 * random.random() if trained else None,
                "val_loss": 0.032 + 0.1 * np.exp(-epoch / 4) + 0.003 * random.random() if trained else None,
                "expected_bitops": 4.5e9 - 1.2e8 * epoch,
                "entropy": sum(_joint_entropy(block, blocks[block], probabilities) for block in blocks),
                "entropy_weight": 1e-3 * epoch / max(epochs, 1),
            }
        )
        for label in logits:
            logits[label] = logits[label] + 0.25 * drift[label] + 0.15 * random.normal(size=len(drift[label]))
    return {"labels": labels, "epochs": entries}


@pytest.fixture
def basic_history() -> dict[str, Any]:
    """Twenty epochs of the basic space."""
    return make_history(BASIC_BLOCKS)


@pytest.fixture
def history_maker() -> Callable[..., dict[str, Any]]:
    """`make_history` itself, for tests that need another shape."""
    return make_history
