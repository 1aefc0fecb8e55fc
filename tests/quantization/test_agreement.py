"""Two processes with different data, of which one starts later, agree on every step, as one process would have it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from quantnas_ext.quantization import LSQActivationQuantizer, agree_on_steps

TWO_PROCESSES = """
import sys, json, torch
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from quantnas_ext.quantization import QuantConv2d, activation_quantizers, agree_on_steps, give_steps_a_group
from quantnas_ext.quantization.quantizers import WATCHED_BATCHES

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
torch.manual_seed(0)
network = nn.Sequential(QuantConv2d(2, 3, 1, bits=4, signed=False), QuantConv2d(3, 2, 1, bits=2))
optimizer = torch.optim.Adam(network.parameters(), 1e-3)
give_steps_a_group(optimizer, network)
parallel = DistributedDataParallel(network)
histories, agreed = [], []
for iteration in range(60):
    if iteration == 50:  # near the end of the watch
        for quantizer in activation_quantizers(network):
            quantizer.seen.fill_(WATCHED_BATCHES - 5)
            quantizer.mirror()
    x = (1 + rank) * torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(10 * iteration + rank))
    if iteration < 3 + 2 * rank:
        x = torch.zeros_like(x)  # dark: the first process has something to see from the fourth batch on
    optimizer.zero_grad()
    parallel(x).square().mean().backward()
    agreed.append(agree_on_steps(network))
    optimizer.step()
    histories.append([[float(q.log_step), float(q.histogram.double().sum()), int(q.seen), bool(q.started), q.batches]
                      for q in activation_quantizers(network)])
weights = sum(float(p.detach().double().abs().sum()) for p in network.parameters())
result = {"histories": histories, "agreed": agreed, "weights": weights}
Path(sys.argv[1], f"rank{rank}.json").write_text(json.dumps(result))
torch.distributed.destroy_process_group()
"""


def test_processes_with_other_data_of_which_one_starts_later_agree_on_every_step(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    root = Path(__file__).parents[2]
    subprocess.run([*command, str(tmp_path), str(root)], check=True, env=environment, timeout=300)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]
    first = [history[0] for history in ranks[0]["histories"]]
    assert [started for _, _, _, started, _ in first[:5]] == [False] * 3 + [True] * 2
    assert ranks[0]["agreed"][-1] is False and all(ranks[0]["agreed"][:50])
    # Of values up to 1 and up to 2 in equal parts: twice the step that the first process would find by itself.
    step = torch.tensor(first[40][0]).exp()
    assert 1.6 / 15 < step < 2.1 / 15


def test_one_process_agrees_with_itself_and_says_when_nothing_can_change_any_more() -> None:
    quantizer = LSQActivationQuantizer(4, signed=False)
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    calls = 0
    while agree_on_steps(torch.nn.Sequential(quantizer)):
        quantizer(x)
        calls += 1
    assert not quantizer.observing and calls > 500
