"""Searches where users run them: launched with a configuration of their own, resumed on what has changed meanwhile."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from nni.mutable import Categorical
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Penalty
from quantnas_ext.errors import InputError
from quantnas_ext.nn import MutableQuantConv2d
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.environment import REFUSED
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.processes import process_state
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.sr.data.patches import PatchDataset

COST = BitOps((1, 3, 8, 8))


class SmallSpace(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        candidates = {
            f"conv{k}": MutableQuantConv2d(3, 12, k, padding=k // 2, bits=Categorical([4, 8], label=f"bits{k}"))
            for k in (1, 3)
        }
        self.layer = LayerChoice(candidates, label="layer")

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.layer(x), 2)


def pairs(seed: int, count: int = 8) -> TensorDataset:
    high = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(F.avg_pool2d(high, 2), high)


def search(folder: Path, **changes: Any) -> tuple[list[EpochRecord], dict[str, Tensor]]:
    """A search of two epochs; what differs from the usual one goes to the evaluator, or by ``strategy`` to QuantNAS."""
    records: list[EpochRecord] = []
    strategy = QuantNAS(
        **{"costs": [Penalty(COST, 0.1)], "architecture_learning_rate": 0.1, **changes.pop("strategy", {})}
    )
    train, validation = changes.pop("data", (pairs(0), pairs(1)))
    evaluator = AccelerateEvaluator(
        train, validation, **{"epochs": 2, "batch_size": 4, "on_epoch": records.append, **changes}
    )
    torch.manual_seed(0)
    run_experiment(SmallSpace(), evaluator, strategy, folder / "nni")
    return records, strategy.supernet.state_dict()


def same(one: tuple[Any, dict[str, Tensor]], other: tuple[Any, dict[str, Tensor]]) -> bool:
    return one[0] == other[0] and all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items())


LAUNCHED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "inductor",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "if possible",
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "True",
    "ACCELERATE_DOWNCAST_BF16": "true",
    "ACCELERATE_FP8_BACKEND": "whatever",
    "ACCELERATE_GRADIENT_CLIPPING": "0.001",
    "FSDP_ACTIVATION_CHECKPOINTING": "true",
}


def test_launched_with_a_configuration_of_accelerate_made_for_another_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = search(tmp_path)
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    launched = search(tmp_path)
    assert same(plain, launched)
    told = capsys.readouterr().err
    assert "a search does not go by ACCELERATE_" in told
    assert all(name in told for name in ("MIXED_PRECISION='bf16'", "DYNAMO_BACKEND", "ACCUMULATION_STEPS='4'"))
    assert LAUNCHED.items() <= os.environ.items()


@pytest.mark.parametrize("variable", REFUSED)
def test_launched_with_deepspeed_or_the_like(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("true", "True", "1"):
        monkeypatch.setenv(variable, value)
        with pytest.raises(InputError, match=f"{variable} in the environment asks for {REFUSED[variable]}"):
            AccelerateEvaluator(pairs(0), pairs(1), epochs=1, batch_size=4)
        with pytest.raises(InputError, match="use data parallelism"):
            process_state()
    monkeypatch.setenv(variable, "false")
    process_state()


@pytest.mark.parametrize("setting", ["ACCELERATE_USE_CPU=maybe", "ACCELERATE_TORCH_DEVICE=gpu0"])
def test_launched_with_a_slip_of_the_pen_in_the_environment(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable, _, value = setting.partition("=")
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=f"{variable}='{value}' in the environment is n"):
        process_state()


def test_searched_in_a_program_that_accumulates_gradients_and_autocasts_itself(tmp_path: Path) -> None:
    plain = search(tmp_path)
    theirs = Accelerator(gradient_accumulation_steps=3)
    with theirs.accumulate(nn.Linear(1, 1)):
        assert not theirs.sync_gradients
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert same(plain, search(tmp_path))


SHARED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_searching import shared_search
shared_search(Path(sys.argv[1]), batch_size=2)
"""


def shared_search(folder: Path, batch_size: int) -> tuple[list[EpochRecord], dict[str, Any]]:
    """A search without noise, and what its last checkpoint holds."""
    checkpoint = folder / "shared.ckpt"
    settings = {"quantization": "none", "gradient_clip": 0.01, "entropy": 0.1}
    records, _ = search(
        folder, batch_size=batch_size, data=(pairs(0, 9), pairs(1)), epochs=3, checkpoint=checkpoint, strategy=settings
    )
    return records, torch.load(checkpoint, weights_only=True)


def test_two_processes_do_in_an_epoch_what_one_does_with_the_same_images_a_step(tmp_path: Path) -> None:
    """Two processes of 2 crops against one of 4: the same steps, losses, gradients, weights and logits."""
    here = Path(__file__)
    (tmp_path / "script.py").write_text(SHARED)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(here.parents[2])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run(
        [*command, str(tmp_path / "script.py"), str(tmp_path), str(here.parent)],
        check=True,
        env=environment,
        timeout=300,
    )
    two = torch.load(tmp_path / "shared.ckpt", weights_only=True)
    (tmp_path / "alone").mkdir()
    records, one = shared_search(tmp_path / "alone", batch_size=4)
    assert [record.step for record in records] == [0, 2, 4, 6] == [record["step"] for record in two["records"]]
    compared = 0
    for ours, theirs in (
        *((one[part], two[part]) for part in ("model", "distribution")),
        *((one[part]["state"], two[part]["state"]) for part in ("optimizer", "architecture_optimizer")),
    ):
        for name, state in ours.items():
            states = (
                zip(state.values(), theirs[name].values(), strict=True)
                if isinstance(state, dict)
                else [(state, theirs[name])]
            )
            for tensor, other in states:
                assert (tensor - other).norm() <= 1e-5 * tensor.norm(), name
                compared += 1
    assert compared > 20
    for record, other in zip(one["records"][1:], two["records"][1:], strict=True):
        for name in ("train_loss", "val_loss", "entropy"):
            assert record[name] == pytest.approx(other[name], rel=1e-5)
    # With its batch alone one process takes twice as many steps for a pass.
    data = AccelerateEvaluator(pairs(0, 9), pairs(1), epochs=1, batch_size=2).data
    assert data.steps_per_epoch == 4 and len(data.fixed_batches(data.train)) == 4


class Weighted(nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.l1_loss(outputs, targets) * self.weight


def of_power(power: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs().pow(power).mean()

    return loss


# Pairs of losses that differ in what they compute, though some of them have one name.
LOSSES: dict[str, tuple[Any, Any]] = {
    "another class": (None, nn.MSELoss()),
    "another setting": (nn.SmoothL1Loss(beta=1.0), nn.SmoothL1Loss(beta=0.5)),
    "another buffer": (Weighted(1.0), Weighted(2.0)),
    "another closure": (of_power(1.0), of_power(1.5)),
    "another argument": (functools.partial(F.huber_loss, delta=1.0), functools.partial(F.huber_loss, delta=2.0)),
    "another lambda": (lambda a, b: (a - b).abs().mean(), lambda a, b: (a - b).square().mean()),
    "another function": (F.l1_loss, F.mse_loss),
}


class Shuffled(Dataset[Any]):
    """Augments with random numbers of its own, so that no sample comes twice."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        low, high = pairs(0)[index]
        order = np.random.default_rng().permutation(3).copy()
        return low[order], high[order]


class Interrupted(Exception):
    pass


def begun(folder: Path, **settings: Any) -> Path:
    """Checkpoint of a search that was interrupted after its first epoch."""

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise Interrupted

    folder.mkdir(exist_ok=True)
    with pytest.raises(Interrupted):
        search(folder, checkpoint=folder / "search.ckpt", **{**settings, "on_epoch": stop})
    return folder / "search.ckpt"


@pytest.mark.parametrize("kind", LOSSES)
def test_resumed_with_a_loss_edited_meanwhile(tmp_path: Path, kind: str) -> None:
    before, after = LOSSES[kind]
    checkpoint = begun(tmp_path, loss=before)
    content = checkpoint.read_bytes()
    with pytest.raises(InputError, match=r"search\.ckpt belongs to a search with other settings: (other )?loss"):
        search(tmp_path, checkpoint=checkpoint, loss=after)
    assert checkpoint.read_bytes() == content
    assert len(search(tmp_path, checkpoint=checkpoint, loss=before)[0]) == 3


def test_resumed_on_other_data_or_switches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = begun(tmp_path)
    other = TensorDataset(pairs(0).tensors[0], pairs(0).tensors[1] * 0.5)
    changes: dict[str, dict[str, Any]] = {
        "other data for the weights: samples$": {"data": (other, pairs(1))},
        "other data for the logits: samples$": {"data": (pairs(0), pairs(2))},
        "data for the weights: length 8 and not 9, other": {"data": (pairs(0, 9), pairs(1)), "steps_per_epoch": 2},
        "weights: samples, other data for the logits": {"data": (pairs(1), pairs(0))},
        "channels_last False and not True$": {"channels_last": True},
        "costs: bitops .1.: weight 0.1 and not 0.2$": {"strategy": {"costs": [Penalty(COST, 0.2)]}},
        "masked_noise False and not True$": {"strategy": {"masked_noise": True}},
    }
    for named, change in changes.items():
        with pytest.raises(InputError) as error:
            search(tmp_path, checkpoint=checkpoint, **change)
        sentence = str(error.value)
        assert "other settings" in sentence and "\n" not in sentence
        assert re.search(named, sentence.partition("; use the")[0]), sentence
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    with pytest.raises(InputError, match="without arithmetic: ONEDNN_DEFAULT_FPMATH_MODE"):
        search(tmp_path, checkpoint=checkpoint)


def test_resumed_where_samples_are_others_every_time(tmp_path: Path) -> None:
    data = Shuffled(), Shuffled()
    assert len(search(tmp_path, checkpoint=begun(tmp_path, data=data), data=data, workers=1)[0]) == 3


def images(folder: Path, seed: int) -> Path:
    generator = np.random.default_rng(seed)
    for name in ("HR", "LRx2"):
        (folder / name).mkdir(parents=True)
    for index in range(4):
        high = generator.integers(0, 255, (48, 48, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "HR" / f"{index}.png"), high)
        cv2.imwrite(str(folder / "LRx2" / f"{index}.png"), high[::2, ::2])
    return folder


def test_resumed_after_run_folder_and_images_were_moved_to_another_disk(tmp_path: Path) -> None:
    def data(folder: Path) -> tuple[PatchDataset, PatchDataset]:
        return (PatchDataset([folder], 2, 8, 0),) * 2

    here = images(tmp_path / "here", 0)
    begun(tmp_path / "run", data=data(here))
    shutil.move(here, tmp_path / "there")
    shutil.move(tmp_path / "run", tmp_path / "archive")
    checkpoint = tmp_path / "archive" / "search.ckpt"
    content = checkpoint.read_bytes()
    assert len(search(tmp_path, checkpoint=checkpoint, data=data(tmp_path / "there"))[0]) == 3
    checkpoint.write_bytes(content)
    with pytest.raises(InputError, match="other settings: .*other data for the weights: samples"):
        search(tmp_path, checkpoint=checkpoint, data=data(images(here, 1)))
