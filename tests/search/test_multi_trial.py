"""NNI's multi-trial strategies on spaces of quantized layers: limits of BitOps, and candidates that are trained."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.oneshot.pytorch.profiler import RangeProfilerFilter
from nni.nas.strategy import TPE, GridSearch, PolicyBasedRL, Random, RegularizedEvolution
from nni.nas.strategy.base import Strategy
from nni.nas.strategy.middleware import Chain, Filter
from small_searches import TwoWays, batch, prepared
from torch import nn
from torch.utils.data import TensorDataset

from quantnas_ext import AccelerateEvaluator, BitOps, BitOpsProfiler, CandidateEvaluator, InputError, QuantNAS
from quantnas_ext.deriving.calibration import score
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.quantization import QuantConv2d, activation_quantizers
from quantnas_ext.search.experiment import run_experiment

COST = BitOps((1, 2, 4, 4))


class Watched(CandidateEvaluator):
    """Keeps what it was given and what it gave."""

    def __init__(self, **changes: Any) -> None:
        data = [TensorDataset(*batch(seed)) for seed in range(2)]
        super().__init__(*data, batch_size=2, weight_learning_rate=1e-2, **changes)
        self.given: list[tuple[nn.Module, float]] = []

    def evaluate(self, model: nn.Module) -> float:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        result = super().evaluate(model)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        self.given.append((model, result))
        return result


STRATEGIES = [
    Random(seed=0), GridSearch(seed=0), RegularizedEvolution(population_size=3, sample_size=2, seed=0), TPE(seed=0)
]  # fmt: skip
if find_spec("tianshou"):
    STRATEGIES.append(PolicyBasedRL(samples_per_update=2))


def limited(strategy: Strategy, maximum: float) -> Strategy:
    return Chain(strategy, Filter(RangeProfilerFilter(BitOpsProfiler(TwoWays(), COST.input_shape), max=maximum)))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_nnis_strategies_train_candidates_within_a_limit_and_return_the_best(tmp_path: Path, strategy: Any) -> None:
    space, evaluator = TwoWays(), Watched(epochs=2)
    sample = run_experiment(space, evaluator, limited(strategy, 2e4), tmp_path, trials=2)
    assert len(evaluator.given) == 2
    assert all(COST.of_network(network) <= 2e4 for network, _ in evaluator.given)
    best = max(evaluator.given, key=lambda given: given[1])
    assert evaluator.best_score == best[1]
    assert COST.of_network(space.freeze(ChoiceTree.of(space).complete(sample))) == COST.of_network(best[0])


def test_a_candidate_is_trained_with_its_quantizers_and_scored_as_asked() -> None:
    candidate = TwoWays().freeze({"layer": "conv3", "bits3": 4})
    negative = Watched(epochs=1)
    held_out = [batch(1)]
    untrained = score(candidate, held_out, {"loss": nn.functional.l1_loss})["loss"]
    assert type(candidate.layer) is QuantConv2d and candidate.layer.precision.weight_bits == 4
    result = Watched(epochs=20, metric=lambda outputs, targets: (outputs - targets).abs().mean()).evaluate(candidate)
    assert result < untrained
    assert negative.evaluate(candidate) < 0 and negative.best_network is not None
    assert all(quantizer.ready for quantizer in activation_quantizers(negative.best_network))
    again = Watched(epochs=1)
    assert again.evaluate(candidate) == negative.best_score
    assert score(negative.best_network, held_out, {"loss": nn.functional.l1_loss})["loss"] == pytest.approx(
        -negative.best_score
    )


def test_evaluators_and_limits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    data = TensorDataset(*batch(0))
    with pytest.raises(InputError, match="which CandidateEvaluator does not; use AccelerateEvaluator"):
        run_experiment(*_space_and(CandidateEvaluator(data, data)), tmp_path)
    with pytest.raises(InputError, match="CandidateEvaluator with others"):
        run_experiment(TwoWays(), AccelerateEvaluator(data, data), Random(), tmp_path, trials=1)
    with pytest.raises(InputError, match="no candidate was trained"):
        strategy = Chain(Random(), Filter(lambda model: False, patience=3))
        run_experiment(TwoWays(), Watched(), strategy, tmp_path, trials=1)
    with pytest.raises(InputError, match="metric 3 cannot be called"):
        Watched(metric=3)
    with pytest.raises(InputError, match="number of trials, 0"):
        run_experiment(TwoWays(), Watched(), Random(), tmp_path, trials=0)


def _space_and(evaluator: CandidateEvaluator) -> tuple[TwoWays, CandidateEvaluator, QuantNAS]:
    space, strategy = prepared()
    return space, evaluator, strategy
