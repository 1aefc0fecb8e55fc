"""Which of the processes of ``accelerate launch`` this one is."""

from __future__ import annotations

import atexit
import functools

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from quantnas_ext.search.loop.environment import check_environment


def process_state() -> PartialState:
    """Accelerate's view of the processes, joined together at the first call.

    Unlike a bare ``PartialState()`` it also finds the other processes on machines without an accelerator.

    Raises:
        InputError: as ``check_environment``.
    """
    check_environment()
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    if state.num_processes > 1:
        _leave_at_exit()
    return state


@functools.cache
def _leave_at_exit() -> None:
    """Have Gloo's threads end before the interpreter does, as they still hold tensors that belong to Python.

    NCCL's group is left alone: after a failure its end can wait for processes that will not come.
    """

    def leave() -> None:
        if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
            torch.distributed.destroy_process_group()

    atexit.register(leave)
