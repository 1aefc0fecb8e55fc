"""Searches of a space whose layers are partly of fixed precision, which are really quantized during the search."""

import json
import os
import subprocess
import sys
from pathlib import Path

TWO_PROCESSES = """
import sys, json, torch
sys.path[:0] = sys.argv[2:]
from accelerate import PartialState
from pathlib import Path
from torch.utils.data import TensorDataset
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Penalty
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.spaces import SRRFDNSpace

torch.manual_seed(0)
kinds = {kind: ["conv_1x1", "conv_3x3"] for kind in ("body", "distil", "upsample", "tail")}
space = SRRFDNSpace(scale=2, width=12, cells=1, adq=False, **kinds)
data = TensorDataset(torch.rand(8, 3, 16, 16), torch.rand(8, 3, 32, 32))
strategy = QuantNAS(costs=[Penalty(BitOps((1, 3, 16, 16)), 1e-3)], architecture_learning_rate=0.3)
evaluator = AccelerateEvaluator(data, data, epochs=2, steps_per_epoch=2, batch_size=1)
sample = run_experiment(space, evaluator, strategy, Path(sys.argv[1], "nni"))
assert PartialState().num_processes == 2
steps = {k: v.tolist() for k, v in strategy.supernet.named_parameters() if k.endswith("activation_quantizer.log_step")}
weights = sum(float(p.detach().double().abs().sum()) for p in strategy.supernet.parameters())
result = {"sample": sample, "steps": steps, "weights": weights}
Path(sys.argv[1], f"rank{PartialState().process_index}.json").write_text(json.dumps(result))
"""


def test_processes_agree_on_the_steps_that_their_different_first_batches_would_set(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    root = Path(__file__).parents[2]
    subprocess.run([*command, str(tmp_path), str(root)], check=True, env=environment, timeout=300)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert len(ranks[0]["steps"]) == 10  # 1x1 of the cell, ESA's seven, 1x1 and 3x3 behind the cells
    assert ranks[0] == ranks[1]
