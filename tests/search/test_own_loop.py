"""A search in a training loop of the user's own: it is the built-in one, and a step left out or misplaced is told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_searches import COST, TwoWays, batch, prepared, tiny_data, tiny_space
from torch import Tensor, nn, optim

from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import QuantConv2d
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.sampling import EpochSampler
from quantnas_ext.search.strategy import QuantNAS

OPTIONS = {"architecture_learning_rate": 0.3, "entropy": 0.1, "warmup_epochs": 1, "relaxation": "gumbel"}
GOALS = [Budget(COST, 5e6), Penalty(COST, 0.1)]


def batches(seed: int, epoch: int) -> list[tuple[Tensor, ...]]:
    """The batches of an epoch, as ``AccelerateEvaluator`` goes through them."""
    sampler, data = EpochSampler(16, 16, seed), tiny_data()
    sampler.set_epoch(epoch)
    order = list(sampler)
    return [data[order[start : start + 2]] for start in range(0, 16, 2)]


def test_a_loop_of_ones_own_is_the_built_in_one_to_the_bit(tmp_path: Path) -> None:
    built_in = QuantNAS(costs=GOALS, **OPTIONS)
    evaluator = AccelerateEvaluator(tiny_data(), tiny_data(), epochs=3, batch_size=2, seed=7, weight_decay=0.0)
    space = tiny_space()
    torch.manual_seed(1)
    sample = run_experiment(space, evaluator, built_in, tmp_path)

    strategy = QuantNAS(costs=GOALS, **OPTIONS)
    space = tiny_space()
    torch.manual_seed(1)
    supernet = strategy.mutate_model(space)
    optimizer = optim.Adam(supernet.parameters(), 1e-3)
    strategy.start(optimizer, epochs=3, steps_per_epoch=8, seed=7)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 24)
    for epoch in range(3):
        torch.manual_seed((7 * 1_000_003 + epoch) * 1_009)  # its random numbers, for what draws from the global ones
        pairs = zip(batches(7, epoch), batches(8, epoch), strict=True)
        for step, (train, validation) in enumerate(pairs, start=8 * epoch):
            if strategy.searching(step):
                with strategy.architecture_phase(step) as phase:
                    phase.minimize(nn.functional.l1_loss(supernet(validation[0]), validation[1]))
            with strategy.weight_phase(step) as phase:
                phase.minimize(nn.functional.l1_loss(supernet(train[0]), train[1]))
            schedule.step()
    for mine, theirs in (
        (strategy.distribution, built_in.distribution),
        (strategy.objective, built_in.objective),
        (supernet, built_in.supernet),
    ):
        expected = theirs.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in mine.state_dict().items())
    assert strategy.most_likely() == sample
    network = strategy.derive()
    assert COST.of_network(network) <= 5e6


def started(**changes: Any) -> tuple[nn.Module, QuantNAS, Callable[[int], Tensor]]:
    space, strategy = prepared(**changes)
    supernet = strategy.mutate_model(space)
    strategy.start(optim.Adam(supernet.parameters(), 1e-2), epochs=3, steps_per_epoch=2)
    return supernet, strategy, lambda seed: (supernet(batch(seed)[0]) - batch(seed)[1]).abs().mean()


def test_phases_freeze_what_they_do_not_train_and_leave_nothing_behind() -> None:
    supernet, strategy, loss = started(costs=[Penalty(BitOps((1, 2, 4, 4)), 0.1)])
    weights = {name: p for name, p in supernet.named_parameters()}
    before = copy.deepcopy(supernet.state_dict())
    logits = copy.deepcopy(strategy.distribution.state_dict())
    with strategy.architecture_phase(0) as phase:
        assert not any(p.requires_grad for p in weights.values())
        phase.minimize(loss(0))
        assert {"task", "entropy", "bitops"} == set(phase.parts)
    assert all(p.requires_grad and p.grad is None for p in weights.values())
    moved = copy.deepcopy(strategy.distribution.state_dict())
    assert all(torch.equal(before[name], p) for name, p in weights.items())
    assert all(not torch.equal(logits[name], moved[name]) for name in logits)
    loss(0).backward()  # outside of phases the supernet is that of the distribution, and may be trained as it likes
    with strategy.weight_phase(0) as phase:
        phase.minimize(loss(1))
    assert all(torch.equal(moved[name], tensor) for name, tensor in strategy.distribution.state_dict().items())
    assert all(not torch.equal(before[name], p) for name, p in weights.items() if name.endswith("weight"))
    assert not strategy.distribution.current.probabilities.requires_grad
    assert type(strategy.derive().fixed) is QuantConv2d


def test_a_loop_that_was_stopped_goes_on_from_its_state() -> None:
    def steps(first: int, last: int) -> None:
        for step in range(first, last):
            with strategy.architecture_phase(step) as phase:
                phase.minimize(loss(step))
            with strategy.weight_phase(step) as phase:
                phase.minimize(loss(step + 10))

    options: dict[str, Any] = {"costs": [Budget(BitOps((1, 2, 4, 4)), 2e4)], "relaxation": "gumbel"}
    supernet, strategy, loss = started(**options)
    steps(0, 3)
    optimizer = strategy._require_loop().optimizer
    state = copy.deepcopy([supernet.state_dict(), optimizer.state_dict(), strategy.state_dict()])
    steps(3, 6)
    expected = [supernet.state_dict(), strategy.state_dict()["distribution"], strategy.objective.state_dict()]
    supernet, strategy, loss = started(**options)
    optimizer = strategy._require_loop().optimizer
    for part, kept in zip((supernet, optimizer, strategy), state, strict=True):
        part.load_state_dict(kept)
    steps(3, 6)
    space, unstarted = prepared(**options)
    unstarted.mutate_model(space)
    with pytest.raises(InputError, match="has not been started"):
        unstarted.load_state_dict(state[2])
    found = [supernet.state_dict(), strategy.state_dict()["distribution"], strategy.objective.state_dict()]
    for before, after in zip(expected, found, strict=True):
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_what_is_left_out_or_misplaced_is_told_in_a_sentence() -> None:
    space, strategy = prepared()
    with pytest.raises(RuntimeError, match="no model space yet"):
        strategy.start(optim.SGD(space.parameters(), 0.1), epochs=1, steps_per_epoch=1)
    supernet = strategy.mutate_model(space)
    with pytest.raises(InputError, match=r"call start\(optimizer"), strategy.weight_phase(0):
        pass
    with pytest.raises(InputError, match=r"lacks 2 of 6 weights of the supernet, such as"):
        strategy.start(optim.SGD(supernet.fixed.parameters(), 0.1), epochs=1, steps_per_epoch=1)
    with pytest.raises(InputError, match="is no optimizer"):
        strategy.start(supernet, epochs=1, steps_per_epoch=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="steps_per_epoch 0"):
        strategy.start(optim.SGD(supernet.parameters(), 0.1), epochs=1, steps_per_epoch=0)
    for changes, sentence in (({"warmup_epochs": 3}, "epochs 3"), ({"derive_from": "best"}, "needs an evaluator")):
        with pytest.raises(InputError, match=sentence):
            started(**changes)

    supernet, strategy, loss = started(warmup_epochs=1)
    early = loss(0)
    with pytest.raises(InputError, match="step 1 is in the warm-up"), strategy.architecture_phase(1):
        pass
    with pytest.raises(InputError, match="step 2 ends without a loss"), strategy.architecture_phase(2):
        pass
    with pytest.raises(InputError, match="computed nothing in it"), strategy.architecture_phase(3) as phase:
        phase.minimize(early)
    with pytest.raises(InputError, match="begins within the weight phase"), strategy.weight_phase(3):
        with strategy.architecture_phase(4):
            pass
    with pytest.raises(InputError, match="comes after the weight phase of step 3"), strategy.weight_phase(3):
        pass
    with pytest.raises(InputError, match="has had its loss"), strategy.weight_phase(4) as phase:
        phase.minimize(loss(0))
        phase.minimize(loss(0))
    with pytest.raises(InputError, match="tensor of one number"), strategy.weight_phase(5) as phase:
        phase.minimize(supernet(batch(0)[0]))
    with pytest.raises(InputError, match="behind the last of 6 steps"), strategy.weight_phase(6):
        pass
    supernet, strategy, loss = started()
    supernet.eval()
    with pytest.raises(InputError, match="in evaluation mode"), strategy.architecture_phase(0):
        pass
    supernet.train()
    with pytest.raises(InputError, match="depends on no weight"), strategy.weight_phase(0) as phase:
        phase.minimize(loss(0).detach().requires_grad_())
    with pytest.raises(InputError, match="whole number"), strategy.weight_phase(-1):
        pass
    assert all(parameter.requires_grad for parameter in supernet.parameters()) and type(supernet) is TwoWays
