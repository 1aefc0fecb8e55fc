"""One warm-up for searches that differ in their costs alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_searches import COST, search

from quantnas_ext.costs.cost import ParameterBytes
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.errors import InputError

WARMUP = 2
GOALS: dict[str, list[Penalty | Budget]] = {
    "budget": [Budget(COST, 4e6)],
    "other budget": [Budget(COST, 6e6)],
    "penalty": [Penalty(COST, 0.5)],
    "two budgets": [Budget(COST, 6e6), Budget(ParameterBytes((1, 3, 8, 8)), 5e3)],
}


def searched(folder: Path, goals: list[Penalty | Budget], **evaluator: Any) -> Any:
    strategy = {"costs": goals, "warmup_epochs": WARMUP}
    return search(folder, epochs=4, entropy=0.1, strategy=strategy, checkpoint=folder / "search.ckpt", **evaluator)


@pytest.fixture(scope="module")
def warmup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a search without any goal at the end of its warm-up."""
    folder = tmp_path_factory.mktemp("warmup")
    _, _, records = searched(folder, [], until=WARMUP)
    assert [record.epoch for record in records] == [0, 1, 2]
    return folder / "search.ckpt"


@pytest.mark.parametrize("goals", GOALS)
def test_a_search_from_a_shared_warm_up_is_the_separate_search_to_the_bit(
    goals: str, warmup: Path, tmp_path: Path
) -> None:
    (tmp_path / "forked").mkdir()
    shutil.copy(warmup, tmp_path / "forked" / "search.ckpt")
    apart, its_sample, its_records = searched(tmp_path / "apart", GOALS[goals])
    forked, sample, records = searched(tmp_path / "forked", GOALS[goals])
    assert (sample, records) == (its_sample, its_records)
    weights, its_weights = forked.supernet.state_dict(), apart.supernet.state_dict()
    assert weights.keys() == its_weights.keys()
    assert all(torch.equal(weights[name], its_weights[name]) for name in weights)
    states = [torch.load(tmp_path / name / "search.ckpt", weights_only=True) for name in ("apart", "forked")]
    assert str(states[0]) == str(states[1])  # optimizers and multipliers too


def test_only_the_costs_may_differ_and_only_within_the_warm_up(warmup: Path, tmp_path: Path) -> None:
    shutil.copy(warmup, tmp_path / "search.ckpt")
    with pytest.raises(InputError, match="entropy"):
        strategy = {"costs": GOALS["budget"], "warmup_epochs": WARMUP, "entropy": 0.2}
        search(tmp_path, epochs=4, strategy=strategy, checkpoint=tmp_path / "search.ckpt")
    searched(tmp_path, GOALS["budget"], until=WARMUP + 1)
    with pytest.raises(InputError, match="costs"):
        searched(tmp_path, GOALS["other budget"])


@pytest.mark.parametrize("until", [0, 5, 1.5])
def test_a_search_stops_after_one_of_its_epochs(until: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="until"):
        searched(tmp_path, [], until=until)
