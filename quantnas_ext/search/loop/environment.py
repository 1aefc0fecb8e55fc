"""What the environment of a process may decide about a search, and what it may not.

``accelerate launch`` hands its options, and those of the user's ``default_config.yaml``, to a program as environment
variables, which ``Accelerator`` then reads by itself. Which devices and processes there are is the launcher's to say.
What would change the result (precision, compilation, accumulated gradients, sharding) is the search's own to say, so
that one configuration has one result wherever it runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, parse_flag_from_env

from quantnas_ext.errors import InputError, shown
from quantnas_ext.notices import notice

REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}
"""Variables that put another way of training in the place of ours, and what they stand for."""

FLAGS = ("ACCELERATE_USE_CPU", "ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE")

DEVICE = "ACCELERATE_TORCH_DEVICE"

KEPT = (*FLAGS, DEVICE, "ACCELERATE_LOG_LEVEL")
"""Variables of Accelerate that say where a search runs or what it logs, not what comes out."""

PREFIXES = ("ACCELERATE_", "FP8_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_")
"""How Accelerate's variables begin."""

PLAIN = {
    "ACCELERATE_DYNAMO_BACKEND": "no",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
    "ACCELERATE_DOWNCAST_BF16": "no",
}
"""Values that ask for nothing, of variables that are worth a warning otherwise."""

ARITHMETIC = (
    "DNNL_DEFAULT_FPMATH_MODE",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Variables by which libraries below torch compute float32 in less."""

_DATA_PARALLEL = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_MLU", "MULTI_SDAA", "MULTI_MUSA", "MULTI_NPU", "MULTI_XPU",
                  "MULTI_HPU", "MULTI_NEURON")  # fmt: skip


def check_environment() -> None:
    """Refuse an environment in which a search cannot be what it says.

    Raises:
        InputError: when Accelerate is told to train with DeepSpeed, FSDP, Megatron-LM or in parts of a model, or on a
            device that there is none of by that name.
    """
    for variable in FLAGS:
        try:
            parse_flag_from_env(variable)
        except ValueError:
            raise InputError(
                f"{variable}={shown(os.environ[variable])} in the environment is neither true nor false; make it one"
            ) from None
    device = os.environ.get(DEVICE)
    try:
        if device is not None:
            torch.device(device)
    except RuntimeError:
        raise InputError(f"{DEVICE}={shown(device)} in the environment is no device; name one such as cpu") from None
    for variable, name in REFUSED.items():
        if os.environ.get(variable, "").strip().lower() in ("1", "true", "t", "yes", "y", "on"):
            raise InputError(
                f"{variable} in the environment asks for {name}, with which a search cannot run; use data parallelism, "
                "as in: accelerate launch --multi_gpu"
            )


@contextmanager
def without_settings() -> Iterator[None]:
    """Accelerate's variables out of the way, but for those that a search goes by; all come back afterwards."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES) and name not in KEPT}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def make_accelerator(mixed_precision: str, *, find_unused_parameters: bool) -> Accelerator:
    """The ``Accelerator`` of a search, which goes by its arguments whatever the environment says.

    Warns where the environment asks for something else.

    Args:
        mixed_precision: ``"no"`` or ``"bf16"``.
        find_unused_parameters: whether a step may leave parameters without a gradient.

    Raises:
        InputError: as ``check_environment``, also where an earlier ``Accelerator`` of this process has set that up.
    """
    check_environment()
    AcceleratorState._reset_state()  # an earlier search of this process may have had another precision
    with without_settings():
        handlers = [DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters)]
        accelerator = Accelerator(mixed_precision=mixed_precision, kwargs_handlers=handlers)
    if str(accelerator.distributed_type.value) not in _DATA_PARALLEL:
        name = DistributedType(accelerator.distributed_type).value
        raise InputError(f"this process has set up {name}, with which a search cannot run; start it in a new one")
    # Shared by all accelerators of a process: one that accumulates gradients may have left it in mid-accumulation.
    accelerator.gradient_state._set_sync_gradients(True)
    if accelerator.is_main_process:
        for variable, plain in {"ACCELERATE_MIXED_PRECISION": mixed_precision, **PLAIN}.items():
            value = os.environ.get(variable, plain)
            if value.lower() not in (plain, "no", "false", ""):
                notice(
                    f"a search does not go by {variable}={shown(value)}, which accelerate launch sets by its options "
                    f"and configuration file; its own configuration decides (here {plain})"
                )
    return accelerator


@contextmanager
def plain_modes(device: torch.device) -> Iterator[None]:
    """Gradients on, inference mode and autocasting off, whatever a caller has switched around the search."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield


def float_arithmetic() -> dict[str, str]:
    """In what float32 is computed, by torch's switches and by variables of the libraries below it, as plain values."""
    backends: Any = torch.backends
    variables = {name: os.environ[name] for name in ARITHMETIC if name in os.environ}
    switches = {"default type": str(torch.get_default_dtype()).removeprefix("torch.")}
    if not hasattr(backends, "fp32_precision"):  # torch before 2.9
        switches["products"] = torch.get_float32_matmul_precision()
        switches["convolutions on CUDA"] = "tf32" if backends.cudnn.allow_tf32 else "ieee"
        return switches | variables
    operators = {
        "products on CUDA": backends.cuda.matmul,
        "convolutions on CUDA": backends.cudnn.conv,
        "products on CPU": backends.mkldnn.matmul,
        "convolutions on CPU": backends.mkldnn.conv,
    }
    for name, operator in operators.items():
        chosen = [value for value in (operator.fp32_precision, backends.fp32_precision) if value != "none"]
        switches[name] = chosen[0] if chosen else "ieee"
    return switches | variables
