"""Timing a step before a search changes nothing of the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.trial_step import trial_step
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRBasicSpace


def searched(folder: Path, *, tried: bool) -> tuple[dict[str, Any], list[EpochRecord], dict[str, torch.Tensor], float]:
    torch.manual_seed(0)
    np.random.seed(0)
    space = SRBasicSpace(
        scale=2, width=6, cells=1, adq=False, bits=[4, 8], head=["conv_3x3"], body=["fac_3x3", "conv_3x3"],
        skip=["conv_1x1"], upsample=["conv_3x3"], tail=["conv_1x1"],
    )  # fmt: skip
    strategy = QuantNAS(entropy=0.1, relaxation="gumbel", architecture_learning_rate=0.3)
    if tried:
        step = trial_step(space, strategy, (2, 3, 8, 8))
        step()
        step()
    high = torch.rand(8, 3, 16, 16)
    data = TensorDataset(torch.nn.functional.avg_pool2d(high, 2), high)
    records: list[EpochRecord] = []
    evaluator = AccelerateEvaluator(
        data, data, epochs=2, steps_per_epoch=3, batch_size=2, channels_last=True, on_epoch=records.append
    )
    sample = run_experiment(space, evaluator, strategy, folder)
    return sample, records, strategy.supernet.state_dict(), float(np.random.rand())


def test_a_search_is_the_same_to_the_bit_whether_a_step_of_it_was_timed_or_not(tmp_path: Path) -> None:
    sample, records, state, number = searched(tmp_path / "a", tried=False)
    again, others, other_state, other_number = searched(tmp_path / "b", tried=True)
    assert sample == again and records == others and number == other_number
    assert all(torch.equal(tensor, other_state[name]) for name, tensor in state.items())
