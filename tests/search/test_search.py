"""Whole small searches: they follow cost and entropy, they repeat themselves bit for bit, they go on after a stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.evaluator.pytorch.lightning import DataLoader, Lightning, Trainer
from nni.nas.experiment import NasExperiment
from small_searches import COST, RestorationModule, search, tiny_data, tiny_space

from quantnas_ext.costs.goals import Penalty
from quantnas_ext.errors import InputError
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.options import StrategyOptions
from quantnas_ext.search.strategy import ArchitectureDistribution, QuantNAS


def extreme(largest: bool) -> float:
    """Cheapest or dearest architecture of the tiny space, by trying every block's candidates."""
    terms = COST.terms(tiny_space())
    blocks: dict[str, list[float]] = {}
    by_choice: dict[tuple[Any, ...], float] = {}
    for choices, cost in terms.items():
        by_choice[tuple(sorted(map(str, choices)))] = cost
        (block,) = (label for label, _ in choices if "__" not in label)
        blocks.setdefault(block, []).append(cost)
    return sum(max(costs) if largest else min(costs) for costs in blocks.values())


def test_a_large_penalty_drives_to_the_cheapest_and_a_negative_one_to_the_dearest(tmp_path: Path) -> None:
    strategy, sample, _ = search(tmp_path, penalty=100.0)
    assert strategy.objective.costs[0].of(sample) == extreme(largest=False)
    strategy, sample, _ = search(tmp_path, penalty=-100.0)
    assert strategy.objective.costs[0].of(sample) == extreme(largest=True)


def test_entropy_falls_when_its_weight_rises(tmp_path: Path) -> None:
    final = {weight: search(tmp_path, entropy=weight)[2][-1].entropy for weight in (-1.0, 0.0, 1.0)}
    assert final[1.0] < final[0.0] < final[-1.0]


def test_the_same_seed_gives_the_same_logits_weights_and_architecture_bit_for_bit(tmp_path: Path) -> None:
    (first, sample, _), (second, again, _) = search(tmp_path, entropy=0.1), search(tmp_path, entropy=0.1)
    assert sample == again
    for ours, theirs in ((first.distribution, second.distribution), (first.supernet, second.supernet)):
        state = theirs.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    other, _, _ = search(tmp_path, entropy=0.1, seed=1)
    assert not torch.equal(first.distribution.logits["head_0"], other.distribution.logits["head_0"])


def test_a_search_that_was_stopped_goes_on_exactly_as_it_would_have(tmp_path: Path) -> None:
    whole, sample, records = search(tmp_path, entropy=0.1)

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "search.ckpt"
    with pytest.raises(KeyboardInterrupt):  # and no result of half a search, as NNI would have it
        search(tmp_path, entropy=0.1, checkpoint=checkpoint, on_epoch=stop)
    resumed, again, continued = search(tmp_path, entropy=0.1, checkpoint=checkpoint)
    assert again == sample and continued == records
    state = resumed.supernet.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in whole.supernet.state_dict().items())
    with pytest.raises(InputError, match="other settings"):
        search(tmp_path, entropy=0.2, checkpoint=checkpoint)
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="damaged"):
        search(tmp_path, entropy=0.1, checkpoint=checkpoint)


def test_warm_up_leaves_the_logits_alone(tmp_path: Path) -> None:
    strategy = QuantNAS(architecture_learning_rate=0.3, warmup_epochs=2)
    records: list[EpochRecord] = []
    evaluator = AccelerateEvaluator(
        tiny_data(), tiny_data(), epochs=3, steps_per_epoch=2, batch_size=2, on_epoch=records.append
    )
    run_experiment(tiny_space(), evaluator, strategy, tmp_path)
    assert records[0].probabilities == records[2].probabilities != records[3].probabilities
    assert records[2].val_loss is None and records[3].val_loss is not None
    with pytest.raises(InputError, match="warm-up of 3 epochs leaves nothing"):
        evaluator.bind(strategy.context, strategy.objective, StrategyOptions(warmup_epochs=3))


@pytest.mark.filterwarnings("ignore")
def test_nnis_own_lightning_evaluator_runs_the_same_strategy(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trainer = Trainer(
        max_epochs=3, accelerator="cpu", enable_progress_bar=False, logger=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    loaders = [DataLoader(tiny_data(), batch_size=2, shuffle=True) for _ in range(2)]
    evaluator = Lightning(RestorationModule(), trainer, train_dataloaders=loaders[0], val_dataloaders=loaders[1])
    strategy = QuantNAS(costs=[Penalty(COST, 100.0)], architecture_learning_rate=0.3, warmup_epochs=1)
    experiment = NasExperiment(tiny_space(), evaluator, strategy)
    experiment.config.experiment_working_directory = str(tmp_path)
    experiment.run()
    (sample,) = experiment.export_top_models(formatter="dict")
    experiment.stop()
    assert strategy.objective.costs[0].of(sample) == extreme(largest=False)
    assert isinstance(strategy.distribution, ArchitectureDistribution)


TWO_PROCESSES = """
import sys, json, torch
sys.path[:0] = sys.argv[4:]
from accelerate import PartialState
from pathlib import Path
from small_searches import COST, search
from quantnas_ext.costs.goals import Budget
relaxation, quantization = sys.argv[2:4]
options = {"costs": [Budget(COST, 5e6)], "relaxation": relaxation, "quantization": quantization, "derive_from": "best"}
strategy, sample, records = search(Path(sys.argv[1]), entropy=0.1, strategy=options)
state = PartialState()
assert state.num_processes == 2
result = {"sample": sample, "logits": {k: v.tolist() for k, v in strategy.distribution.logits.items()},
          "multipliers": strategy.objective.multipliers.values.tolist(),
          "weights": sum(float(p.double().abs().sum()) for p in strategy.supernet.parameters())}
Path(sys.argv[1], f"rank{state.process_index}.json").write_text(json.dumps(result))
"""


# Of the second, draws leave candidates out, whose activation steps then start later than others.
@pytest.mark.parametrize(("relaxation", "quantization"), [("gumbel", "noise"), ("one_path", "direct")])
def test_two_processes_agree_on_logits_weights_and_architecture(
    tmp_path: Path, relaxation: str, quantization: str
) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    here = Path(__file__).parent
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    command += [str(tmp_path), relaxation, quantization, str(here.parent), str(here.parents[1])]
    subprocess.run(command, check=True, env=environment, timeout=300)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]


KILLED = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from small_searches import search
search(Path(sys.argv[1]), entropy=0.1, epochs=40, checkpoint=Path(sys.argv[1], "search.ckpt"))
"""


def test_a_killed_search_leaves_a_whole_checkpoint_behind(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    here = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), str(here.parent), str(here.parents[1])], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "search.ckpt").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, sample, records = search(tmp_path, entropy=0.1, epochs=40, checkpoint=tmp_path / "search.ckpt")
    _, expected, whole = search(tmp_path, entropy=0.1, epochs=40)
    assert sample == expected and records == whole
