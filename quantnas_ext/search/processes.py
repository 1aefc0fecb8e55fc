"""Which of the processes of ``accelerate launch`` this one is."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def process_state() -> PartialState:
    """Accelerate's view of the processes, joined together at the first call.

    Unlike a bare ``PartialState()`` it also finds the other processes on machines without an accelerator.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
