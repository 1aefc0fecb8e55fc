"""What JSON has no number for: infinite and undefined values become null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def json_values(value: Any) -> Any:
    """Plain data with None for every infinite or undefined number, such as the PSNR of equal images.

    Python's ``json`` would write ``Infinity`` and ``NaN``, which are no JSON and which other programs refuse.
    """
    if isinstance(value, Mapping):
        return {key: json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
