"""What NNI 3.0 and BasicSR 1.4.2 need to live with today's torch and torchvision, each shim with its reason.

Whoever imports BasicSR calls ``prepare_basicsr`` first; the package itself calls ``prepare_nni``. Importing this module
is light.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any

from quantnas_ext.errors import InputError


def prepare_nni() -> None:
    """Let ``nni.nas.nn.pytorch`` be imported, whenever that is, without the one harmless warning that it gives.

    NNI wraps every class of ``torch.nn`` at import and warns of the one that is neither a module nor known to it,
    ``torch.nn.Buffer``, new in torch 2.5; it passes the class through unchanged, which is right. Only that message of
    that module is silenced. Another framework that ``NNI_FRAMEWORK`` in the environment asks for, by which NNI's
    modules would be others, is set aside. NNI itself is not imported.
    """
    os.environ["NNI_FRAMEWORK"] = "pytorch"
    warnings.filterwarnings(
        "ignore",
        message=r"<class 'torch\.nn\.parameter\.Buffer'> is found to be not a nn\.Module",
        category=RuntimeWarning,
        module=r"nni\.nas\.nn\.pytorch\.layers",
    )


@functools.cache
def prepare_basicsr() -> None:
    """Make ``import basicsr`` work and its training run on a CPU, in one process or several.

    * OpenCV's usual wheel needs the libraries of a desktop; where they are missing the error says what to install.
    * ``basicsr.data.degradations`` imports ``rgb_to_grayscale`` from ``torchvision.transforms.functional_tensor``, a
      module that torchvision 0.17 removed; a module of that name with that one function is put in its place.
    * ``_init_dist_pytorch`` takes the rank modulo the number of GPUs and asks for NCCL: without a GPU that divides by
      zero; the processes then meet through gloo.
    * ``BaseModel.model_to_device`` pins a distributed network to the current GPU, which does not exist on a CPU.
    * ``load_resume_state`` puts the saved optimizer state on the current GPU, so that no training goes on without one.
    """
    _require_opencv()
    _provide_functional_tensor()
    dist_util: Any = importlib.import_module("basicsr.utils.dist_util")
    train: Any = importlib.import_module("basicsr.train")
    base_model: Any = importlib.import_module("basicsr.models.base_model")
    dist_util._init_dist_pytorch = _with_gloo_on_cpu(dist_util._init_dist_pytorch)
    base_model.BaseModel.model_to_device = _with_ddp_on_cpu(base_model.BaseModel.model_to_device)
    train.load_resume_state = functools.partial(_load_resume_state, train.check_resume)


def _require_opencv() -> None:
    """Import OpenCV, and say what to do where its wheel lacks a library of the system, such as libGL on a server."""
    try:
        importlib.import_module("cv2")
    except ImportError as error:
        raise ImportError(
            f"OpenCV cannot be loaded ({error}); on a machine without a desktop install opencv-python-headless "
            "in place of opencv-python"
        ) from error


def _provide_functional_tensor() -> None:
    """Put back ``torchvision.transforms.functional_tensor`` with the one function that BasicSR takes from it."""
    name = "torchvision.transforms.functional_tensor"
    transforms = importlib.import_module("torchvision.transforms")
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    module = types.ModuleType(name, "Stands in for the module of torchvision 0.16 and older.")
    module.__dict__["rgb_to_grayscale"] = transforms.functional.rgb_to_grayscale
    sys.modules[name] = module


def _with_gloo_on_cpu(original: Any) -> Any:
    """BasicSR's start of a process group (``_init_dist_pytorch``), with gloo where there is no GPU."""
    import torch

    @functools.wraps(original)
    def init_dist_pytorch(backend: str, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            original(backend, **kwargs)
        else:
            torch.distributed.init_process_group(backend="gloo", **kwargs)

    return init_dist_pytorch


def _with_ddp_on_cpu(original: Any) -> Any:
    """BasicSR's placing of a network, with a distributed wrapper that names no device where there is no GPU."""
    from torch.nn.parallel import DistributedDataParallel

    @functools.wraps(original)
    def model_to_device(self: Any, net: Any) -> Any:
        if not self.opt["dist"] or self.device.type == "cuda":
            return original(self, net)
        unused = self.opt.get("find_unused_parameters", False)
        return DistributedDataParallel(net.to(self.device), find_unused_parameters=unused)

    return model_to_device


def _load_resume_state(check_resume: Any, opt: dict[str, Any]) -> dict[str, Any] | None:
    """BasicSR's search for a state to resume from, loaded to the CPU and without running any pickled code.

    The optimizer moves its state to wherever its parameters are, so that the CPU is right for every device. States are
    looked for in the experiment's own folder, which for BasicSR is the one below the working directory. Where the
    newest one or its network is damaged or missing, as after a crash or on a full disk, the one before is taken, and
    a warning says so; where a named one, or every one, is, an ``InputError``. None stands for a training that begins.
    """
    found = Path(opt["path"]["training_states"]).glob("*.state") if opt["auto_resume"] else ()
    states = sorted((path for path in found if path.stem.isdecimal()), key=lambda path: int(path.stem), reverse=True)
    for path in states:
        try:
            state = _whole_state(opt, path)
        except InputError as error:
            logging.getLogger("basicsr").warning(f"{error}; the state before it is taken, if there is one")
            continue
        opt["path"]["resume_state"] = os.fspath(path)
        check_resume(opt, state["iter"])
        return state
    if states:
        raise InputError(
            f"none of the {len(states)} training states in '{states[0].parent}' is whole; bring back a copy of one, "
            "or remove them to train anew"
        )
    if not opt["path"].get("resume_state"):
        return None
    state = _whole_state(opt, Path(opt["path"]["resume_state"]))
    check_resume(opt, state["iter"])
    return state


def _whole_state(opt: dict[str, Any], path: Path) -> dict[str, Any]:
    """A training state whose networks are there too; an ``InputError`` says what is missing or damaged."""
    import torch

    def load(file: Path, kind: str, instead: str) -> dict[str, Any]:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except OSError as error:
            raise InputError(f"{kind} '{file}' cannot be read ({error.strerror}); name an existing one") from error
        except Exception as error:  # a broken or foreign pickle raises nearly anything
            raise InputError(f"'{file}' is not {instead}") from error
        if not isinstance(content, dict):
            raise InputError(f"'{file}' is not {instead}")
        return content

    state = load(path, "training state", "a training state of BasicSR; name a file such as 500.state")
    if not {"epoch", "iter", "optimizers", "schedulers"} <= state.keys():
        raise InputError(f"'{path}' is not a training state of BasicSR; name a file such as 500.state")
    for name in opt:
        if name.startswith("network_") and name not in (opt["path"].get("ignore_resume_networks") or ()):
            weights = Path(opt["path"]["models"], f"net_{name.removeprefix('network_')}_{state['iter']}.pth")
            whole = f"the whole network that belongs to '{path.name}'"
            load(weights, f"the network of training state '{path.name}',", whole)
    return state
