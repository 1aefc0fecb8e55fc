"""Searches in two processes without Accelerate: inside Lightning with its DDP, and in a loop of one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = """
import json
import os
import socket
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
import torch
from nni.nas.evaluator.pytorch.lightning import DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset
from quantnas_ext import BitOps, Budget, InputError
from small_searches import RestorationModule, batch, prepared

COSTS = [Budget(BitOps((1, 2, 4, 4)), 2e4)]


def result(strategy):
    return {
        "architecture": strategy.most_likely(),
        "logits": {label: value.tolist() for label, value in strategy.distribution.logits.items()},
        "multipliers": strategy.objective.multipliers.values.tolist(),
        "state": [float(tensor.double().sum()) for tensor in strategy.supernet.state_dict().values()],
    }


def lightning(ddp, relaxation):
    space, strategy = prepared(relaxation=relaxation, derive_from="best", costs=COSTS, entropy=0.1)
    quiet = dict(logger=False, enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False)
    trainer = Trainer(accelerator="cpu", strategy=ddp, devices=2, max_epochs=3, **quiet)
    loaders = [DataLoader(TensorDataset(*batch(seed)), batch_size=1) for seed in range(2)]
    evaluator = Lightning(RestorationModule(), trainer, train_dataloaders=loaders[0], val_dataloaders=loaders[1])
    torch.manual_seed(trainer.global_rank)  # what processes start from is the first one's
    try:
        strategy(RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine())
    except InputError as error:
        return str(error)
    assert trainer.world_size == 2
    return result(strategy)


def own_loop():
    space, strategy = prepared(costs=COSTS, entropy=0.1, quantization="direct")
    torch.manual_seed(torch.distributed.get_rank())
    supernet = strategy.mutate_model(space)
    strategy.start(torch.optim.Adam(supernet.parameters(), 1e-2), epochs=2, steps_per_epoch=4)
    parallel = DistributedDataParallel(supernet)
    for step in range(8):
        (x, y), (u, v) = (batch(8 * step + 4 * part + torch.distributed.get_rank()) for part in range(2))
        with strategy.architecture_phase(step) as phase:
            phase.minimize(nn.functional.l1_loss(supernet(x), y))
        with strategy.weight_phase(step) as phase:
            phase.minimize(nn.functional.l1_loss(parallel(u), v))
    return result(strategy)


with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
child = os.fork()  # what takes long, the imports, is done once
rank = 0 if child else 1
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0",
                  MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test")
cases = [("ddp", "softmax"), ("ddp_find_unused_parameters_true", "one_path"), ("ddp", "one_path")]
found = [lightning(*case) for case in cases] + [own_loop()]
Path(sys.argv[1], f"rank{rank}.json").write_text(json.dumps(found))
torch.distributed.destroy_process_group()
if child:
    assert os.waitpid(child, 0)[1] == 0
os._exit(0)
"""


def test_two_processes_search_as_one_with_plain_ddp_where_draws_leave_nothing_out(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    here = Path(__file__).parent
    command = [sys.executable, str(script), str(tmp_path), str(here.parent), str(here.parents[1])]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=240, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks: list[Any] = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]
    softmax, one_path, refused, own = ranks[0]
    assert len({json.dumps(found) for found in (softmax, one_path, own)}) == 3
    assert "use strategy='ddp_find_unused_parameters_true'" in refused
