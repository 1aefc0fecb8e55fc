"""The file from which an interrupted search goes on."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from quantnas_ext.errors import InputError


def load_checkpoint(path: Path, required: Collection[str] = ()) -> dict[str, Any]:
    """Read what ``save_tensors`` wrote, without unpickling anything but tensors and plain values.

    Args:
        path: the file.
        required: keys that the checkpoint must have.

    Raises:
        InputError: when the file is no such checkpoint, or one of an older version.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for foreign or damaged files
        raise InputError(f"{path} is not a checkpoint of a search, or is damaged; delete it to start anew") from error
    if isinstance(state, dict) and "settings" in state and "epoch" in state:  # as they were before the options' fields
        raise InputError(
            f"{path} is the checkpoint of an older version of this package, with which alone its search goes on; "
            "delete it to start anew"
        )
    if not isinstance(state, dict) or not all(key in state for key in required):
        raise InputError(f"{path} is not a checkpoint of a search, or lacks some of it; delete it to start anew")
    return state
