"""NNI and BasicSR live with the torch and torchvision that are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from quantnas_ext import compat
from quantnas_ext.errors import InputError


def test_nni_imports_without_its_warning_and_other_warnings_show() -> None:
    code = (
        "import sys, warnings\n"
        "from quantnas_ext import compat\n"
        "assert not {'torch', 'nni', 'basicsr'} & sys.modules.keys(), 'importing the package is light'\n"
        "import torch\n"
        "from quantnas_ext import QuantNAS\n"
        "from nni.nas.strategy import DARTS\n"
        "assert issubclass(QuantNAS, DARTS), 'not the class that NNI puts in place of what it cannot import'\n"
        "warnings.warn(f'{torch.nn.Buffer} is found to be not a nn.Module', RuntimeWarning)\n"
    )
    command = [sys.executable, "-W", "default::RuntimeWarning", "-c", code]
    # Another project's choice, with which NNI would not load at all.
    environment = {**os.environ, "NNI_FRAMEWORK": "tensorflow"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning") == 1 and "<string>:8" in done.stderr
    assert done.stdout == ""


def test_basicsr_resumes_on_a_cpu_and_refuses_what_it_did_not_save(tmp_path: Path) -> None:
    compat.prepare_basicsr()
    from basicsr import train

    options = {"auto_resume": True, "path": {"training_states": str(tmp_path)}}
    assert train.load_resume_state(options) is None

    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    for iteration in (500, 1000):
        state = {"epoch": 0, "iter": iteration, "optimizers": [optimizer.state_dict()], "schedulers": []}
        torch.save(state, tmp_path / f"{iteration}.state")
    resumed = train.load_resume_state(options)
    assert resumed["iter"] == 1000 and options["path"]["resume_state"].endswith("1000.state")
    assert torch.equal(resumed["optimizers"][0]["state"][0]["exp_avg"], optimizer.state[weight]["exp_avg"])

    torch.save({"iter": 1, "code": SimpleNamespace()}, tmp_path / "2000.state")
    assert train.load_resume_state(options)["iter"] == 1000
    for iteration in (500, 1000):
        (tmp_path / f"{iteration}.state").unlink()
    with pytest.raises(InputError, match="none of the 1 training states"):
        train.load_resume_state(options)
    with pytest.raises(InputError, match="2000.state' is not a training state"):
        train.load_resume_state({"auto_resume": False, "path": {"resume_state": str(tmp_path / "2000.state")}})
    with pytest.raises(InputError, match="absent.state' cannot be read"):
        train.load_resume_state({"auto_resume": False, "path": {"resume_state": str(tmp_path / "absent.state")}})


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU BasicSR's own way is taken")
def test_basicsr_trains_in_several_processes_through_gloo_without_a_gpu(tmp_path: Path) -> None:
    compat.prepare_basicsr()
    from basicsr.models.base_model import BaseModel
    from basicsr.utils import dist_util

    dist_util._init_dist_pytorch("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert torch.distributed.get_backend() == "gloo"
        network = BaseModel({"num_gpu": 0, "dist": True, "is_train": True}).model_to_device(torch.nn.Linear(2, 1))
        assert isinstance(network, torch.nn.parallel.DistributedDataParallel)
        network(torch.ones(1, 2)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
