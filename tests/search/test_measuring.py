"""The answer of a search with a budget is measured among the most probable architectures and plain ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_searches import COST, tiny_data, tiny_space
from torch.nn.functional import l1_loss

from quantnas_ext.costs.cost import sample_cost
from quantnas_ext.costs.goals import Budget
from quantnas_ext.deriving.calibration import score
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.measuring import SuccessiveHalving
from quantnas_ext.search.result import SearchResult, run_search
from quantnas_ext.search.strategy import QuantNAS

MAXIMUM = 4e6


def searched(folder: Path, **options: Any) -> tuple[QuantNAS, AccelerateEvaluator, SearchResult]:
    space = tiny_space()
    strategy = QuantNAS(costs=[Budget(COST, MAXIMUM)], architecture_learning_rate=0.3, **options)
    evaluator = AccelerateEvaluator(
        tiny_data(), tiny_data(), epochs=3, steps_per_epoch=8, batch_size=2, checkpoint=folder / "search.ckpt"
    )
    result = run_search(space, evaluator, strategy, folder / "nni", metrics={"loss": l1_loss}, top_k=3)
    assert result is not None
    return strategy, evaluator, result


def test_the_best_measured_one_is_the_answer_also_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, evaluator, result = searched(tmp_path / "whole", measured=4)
    measured, terms = result.measured, COST.terms(tiny_space())
    assert sum(not candidate.plain for candidate in measured) == 4 and 1 <= len(measured) - 4 <= 2
    assert [c.choices for c in measured[:4]] == [sample for _, sample in strategy.top_architectures(4)]
    assert all(0.95 * MAXIMUM <= sample_cost(terms, c.choices) <= MAXIMUM for c in measured)
    rounds = [len(candidate.losses) for candidate in measured]
    assert sorted(rounds) == [1] * (len(measured) - len(measured) // 2) + [2] * (len(measured) // 2)
    first = sorted(measured, key=lambda candidate: candidate.losses[0])
    assert all(len(candidate.losses) == 2 for candidate in first[: len(measured) // 2])
    best = min((c for c in measured if len(c.losses) == 2), key=lambda candidate: candidate.losses[1])
    assert result.choices == best.choices and result.top[0] == (best.log_probability, best.choices)
    assert len(result.top) == 3 and result.measuring_seconds > 0
    # The better weights are kept: the supernet's, or those that it had when it was measured.
    scores = result.scores
    assert scores["measured"]["loss"] == pytest.approx(best.losses[1], rel=1e-5)
    kept = score(result.network, evaluator.validation_batches(), {"loss": l1_loss})
    assert kept == min(scores["measured"], scores["derived"], key=lambda of: of["loss"])
    assert (kept == scores["measured"]) == (result.weights == "trained to be measured")

    train = SuccessiveHalving._train

    def stopped(self: SuccessiveHalving, steps: int, before: int, bar: Any) -> None:
        if before:
            raise KeyboardInterrupt
        train(self, steps, before, bar)

    monkeypatch.setattr(SuccessiveHalving, "_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "resumed", measured=4)
    seen = []
    monkeypatch.setattr(SuccessiveHalving, "_train", lambda self, *rest: (seen.append(rest[1]), train(self, *rest)))
    _, _, resumed = searched(tmp_path / "resumed", measured=4)
    assert len(seen) == 1 and seen[0] > 0  # the first round is not made again
    assert resumed.measured == measured and resumed.choices == result.choices
    for name, tensor in result.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name])


def test_without_measuring_the_most_probable_one_is_the_answer(tmp_path: Path) -> None:
    strategy, _, result = searched(tmp_path, measured=0)
    assert result.measured == [] and result.choices == strategy.most_likely()
    assert list(result.scores) == ["supernet", "full_precision", "derived"]
