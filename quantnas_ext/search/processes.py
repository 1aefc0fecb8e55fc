"""Which of the processes of ``accelerate launch`` this one is."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def process_state() -> PartialState:
    """Accelerate's view of the processes, joined together at the first call.

    Unlike a bare ``PartialState()`` it also finds the other processes on machines without an accelerator.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def set_threads(threads: int | None) -> None:
    """Set the CPU threads of this process; ``accelerate launch`` leaves it with one.

    Args:
        threads: how many; None shares the machine's cores among the processes on it.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // local))
