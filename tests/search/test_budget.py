"""Budgets: the search meets them by itself, exactly, and as well as an exhaustive search over architectures would."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from small_searches import COST, LinkedSpace, all_architectures, samples, search, tiny_space
from torch import nn
from torch.utils.data import TensorDataset

from quantnas_ext.costs.cost import BitOps, Cost, ParameterBytes, sample_cost
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.deriving import knapsack
from quantnas_ext.deriving.ranking import ArchitectureSelector
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.lightning import architecture_optimizer
from quantnas_ext.search.multipliers import Multipliers
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRRFDNSpace
from quantnas_ext.supernet.layer_choice import SupernetModule


def expected_best(architectures: list[Any], maxima: list[float]) -> float:
    within = [entry for entry in architectures if all(c <= m for c, m in zip(entry[2], maxima, strict=True))]
    filled = [entry for entry in within if entry[2][0] >= 0.95 * maxima[0]]
    return max(entry[1] for entry in (filled or within))


@pytest.mark.parametrize("space", [tiny_space, LinkedSpace])
def test_the_selected_architecture_is_the_most_probable_that_keeps_and_fills_the_budget(space: Any) -> None:
    model = space()
    torch.manual_seed(1)
    distribution = ArchitectureDistribution(ChoiceTree.of(model))
    for logits in distribution.parameters():
        logits.data.normal_(std=2.0)
    architectures = all_architectures(model, distribution, [COST])
    costs = sorted({entry[2][0] for entry in architectures})
    filled = 0
    for maximum in [*np.linspace(max(costs[0], 1.0), costs[-1], 9), costs[len(costs) // 3], 2 * costs[-1]]:
        selector = ArchitectureSelector(distribution.tree, [Budget(COST, maximum)], [COST.terms(model)])
        assert selector.range() == (costs[0], costs[-1])
        sample = selector.select(distribution.log_probabilities())
        cost = sample_cost(COST.terms(model), sample)
        (found,) = [log for other, log, _ in architectures if other == sample]
        assert cost <= maximum and found == pytest.approx(expected_best(architectures, [maximum]))
        exists = any(0.95 * maximum <= c <= maximum for c in costs)
        assert cost >= 0.95 * maximum or not exists
        filled += exists
    assert filled >= 5
    assert not any(module._forward_hooks for module in model.modules())


def test_two_budgets_are_kept_together_or_refused_together() -> None:
    model = tiny_space()
    torch.manual_seed(2)
    distribution = ArchitectureDistribution(ChoiceTree.of(model))
    for logits in distribution.parameters():
        logits.data.normal_()
    costs = [COST, ParameterBytes((1, 3, 8, 8))]
    terms = [cost.terms(model) for cost in costs]
    architectures = all_architectures(model, distribution, costs)
    middle = [float(np.median([entry[2][index] for entry in architectures])) for index in range(2)]
    selector = ArchitectureSelector(
        distribution.tree, [Budget(cost, m) for cost, m in zip(costs, middle, strict=True)], terms
    )
    sample = selector.select(distribution.log_probabilities())
    assert all(sample_cost(of, sample) <= maximum for of, maximum in zip(terms, middle, strict=True))
    both = [e for e in architectures if all(0.95 * m <= c <= m for c, m in zip(e[2], middle, strict=True))]
    (found,) = [log for other, log, _ in architectures if other == sample]
    assert found == pytest.approx(max(entry[1] for entry in both))


def test_the_knapsack_on_a_grid_keeps_the_limits_and_loses_little(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    groups = [knapsack.Group(random.random((5, 1)), random.normal(size=5)) for _ in range(8)]
    totals = sum(np.array(list(itertools.product(*(g.costs[:, 0] for g in groups)))).T)
    values = sum(np.array(list(itertools.product(*(g.values for g in groups)))).T)
    for states, loss in ((10**7, 1e-9), (500, 0.2)):
        monkeypatch.setattr(knapsack, "STATES", states)
        for maximum in np.linspace(totals.min(), totals.max(), 6):
            least, most = np.array([0.95 * maximum]), np.array([maximum * (1 + 1e-12)])
            within = (totals >= least) & (totals <= most)
            found = knapsack.best_selection(groups, least, most)
            assert found is not None
            cost = sum(g.costs[i, 0] for g, i in zip(groups, found[1], strict=True))
            assert least[0] <= cost <= most[0]
            assert values[within].max() - loss <= found[0] <= values[within].max() + 1e-9
    assert knapsack.best_selection(groups, np.array([0.0]), np.array([totals.min() * 0.99])) is None


def test_a_budget_below_the_cheapest_architecture_is_refused_and_the_range_is_named() -> None:
    distribution = ArchitectureDistribution(ChoiceTree.of(tiny_space()))
    costs = [entry[2][0] for entry in all_architectures(tiny_space(), distribution, [COST])]
    strategy = QuantNAS(costs=[Budget(COST, min(costs) - 1)])
    for refused in (strategy.check, strategy.mutate_model):
        with pytest.raises(InputError, match=rf"{min(costs):.0f} \(cheapest\) to {max(costs):.0f} \(dearest\)"):
            refused(tiny_space())
    QuantNAS(costs=[Budget(COST, min(costs))]).check(tiny_space())
    for maximum in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="above 0"):
            Budget(COST, maximum)


def test_a_budget_moves_the_distribution_to_the_nearest_one_that_keeps_it() -> None:
    """Nearest in Kullback-Leibler divergence: ``log q(a) = log p(a) - lambda cost(a) + constant``, to first order."""
    strategy = QuantNAS(costs=[Budget(COST, 4e6)])
    distribution, objective = strategy._objective_of(tiny_space())
    multipliers = objective.multipliers
    assert multipliers is not None and any(choice.parent for choice in distribution.tree)
    torch.manual_seed(4)
    for logits in distribution.parameters():
        logits.data.normal_()
    before = all_architectures(tiny_space(), distribution, [COST])
    expected = sum(math.exp(log) * cost for _, log, (cost,) in before)
    objective.update(0.01)
    after = all_architectures(tiny_space(), distribution, [COST])
    (target,) = multipliers.targets().tolist()
    assert 0.98 * expected < target < expected  # the target starts where the distribution does
    assert sum(math.exp(log) * cost for _, log, (cost,) in after) == pytest.approx(target, rel=1e-4)
    price = float(multipliers.values)
    assert price > 0
    for (_, log, (cost,)), (_, other, _) in zip(before, after, strict=True):
        assert other - log == pytest.approx(-price * (cost - expected) / target, abs=0.02 * price)


@pytest.mark.parametrize("start", [9e6, 2e6])
def test_the_target_leads_from_the_start_to_the_budget_in_three_quarters_of_the_search(start: float) -> None:
    multipliers = Multipliers([Budget(COST, 4e6)], [0.95], [], [])
    multipliers.starts.fill_(start)
    targets = []
    for progress in np.linspace(0, 1, 41):
        multipliers.progress.fill_(progress)
        targets.append(multipliers.targets().item())
    ratios = np.diff(np.log(targets)) / math.log(4e6 / start)
    assert targets[0] == start and targets[15] == pytest.approx(math.sqrt(start * 4e6))
    assert targets[30:] == pytest.approx([4e6] * 11) and (ratios[:30] > 0).all()
    assert ratios[[0, 29]].max() < 0.01 and ratios.max() < 0.06  # no jump anywhere


@pytest.mark.parametrize(("share", "size"), [(0.1, 1e3), (0.3, 1e-3), (0.6, 1e3)])
def test_on_a_loss_of_known_optimum_costs_follow_their_target_and_the_best_is_found(share: float, size: float) -> None:
    """Cheap options of great worth among costly ones, which a budget that pushes everything down loses."""
    model = tiny_space()
    tree, terms = ChoiceTree.of(model), COST.terms(model)
    costs = [sample_cost(terms, sample) for sample in samples(tree)]
    maximum = min(costs) + share * (max(costs) - min(costs))
    distribution, objective = QuantNAS(costs=[Budget(COST, maximum)])._objective_of(model)
    generator = torch.Generator().manual_seed(0)
    worth = {choice.label: torch.rand(len(choice.values), generator=generator) for choice in tree}
    for label in worth:
        if label.startswith("head_0__"):  # the first layer at 8 bits, which costs little
            worth[label] = torch.tensor([0.0, 3.0])
    optimizer = architecture_optimizer(distribution, 0.1)
    steps, multipliers = 150, objective.multipliers
    assert multipliers is not None
    for step in range(steps):
        draw = distribution.draw()
        reach = dict(zip(worth, distribution.reach(draw), strict=True))
        gained = sum(reach[label] * (draw[label] * of).sum() for label, of in worth.items())
        loss, _ = objective(-size * gained, draw, step / 10, steps // 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.update(1 / steps)
        with torch.no_grad():
            expected = objective.expected_costs(distribution.softmax())["bitops"]
        assert 0.95 * 0.95 * multipliers.targets().item() < expected < 1.03 * multipliers.targets().item()
    assert 0.95 * maximum <= expected <= 1.01 * maximum

    def value(sample: dict[str, Any]) -> float:
        places = {choice.label: choice.values.index for choice in tree}
        return sum(float(worth[label][places[label](chosen)]) for label, chosen in sample.items())

    within = [value(s) for s in samples(tree) if 0.95 * maximum <= sample_cost(terms, s) <= maximum]
    found = objective.most_likely()
    assert found[f"head_0__{found['head_0']}__bits"] == 8
    assert value(found) >= max(within) - 0.1


def test_a_budget_is_no_part_of_the_loss() -> None:
    strategy = QuantNAS(costs=[Budget(COST, 3e6)])
    strategy.mutate_model(tiny_space())
    loss, parts = strategy.objective(torch.full((), 0.25), strategy.distribution.draw(), t=0.0, epochs=2)
    assert loss.item() == 0.25 and float(parts["bitops"]) > 3e6


def test_what_the_modules_of_a_supernet_export_is_the_architecture_found_within_the_budget() -> None:
    linked: list[dict[str, Any]] = []
    for space, maximum in ((LinkedSpace(), None), (LinkedSpace(), 6_000), (tiny_space(), 3e6)):
        torch.manual_seed(3)
        strategy = QuantNAS(costs=[] if maximum is None else [Budget(COST, maximum)])
        strategy.mutate_model(space)
        for logits in strategy.distribution.parameters():
            logits.data.normal_(std=3.0)
        exported: dict[str, Any] = {}
        for module in space.modules():
            if isinstance(module, SupernetModule):
                exported.update(module.export(exported))
        found = strategy.most_likely()
        assert exported == found
        linked.append(found)
        if maximum is not None:
            assert found != strategy.distribution.most_likely()
            assert sample_cost(COST.terms(space), found) <= maximum
    assert linked[0] != linked[1]


@pytest.mark.parametrize("share", [0.05, 0.25, 0.8])
def test_searches_end_within_their_budget_and_use_it(tmp_path: Path, share: float) -> None:
    tree = ChoiceTree.of(tiny_space())
    terms = COST.terms(tiny_space())
    costs = [sample_cost(terms, sample) for sample in samples(tree)]
    maximum = min(costs) + share * (max(costs) - min(costs))
    strategy, sample, records = search(tmp_path, strategy={"costs": [Budget(COST, maximum)]}, epochs=4)
    assert any(0.95 * maximum <= cost <= maximum for cost in costs)
    assert 0.95 * maximum <= BitOps(COST.input_shape).of_network(strategy.derive()) <= maximum
    assert sample == strategy.most_likely()
    # The multiplier had brought the expectation there before anything was derived.
    assert records[-1].expected_costs["bitops"] == pytest.approx(0.975 * maximum, rel=0.12)
    assert records[0].multipliers == {"bitops": 0.0}
    assert records[-1].multipliers == {"bitops": strategy.objective.multipliers.values.item()} != records[0].multipliers
    first = records[0].expected_costs["bitops"]
    assert abs(first - 0.975 * maximum) > 0.1 * maximum


@pytest.mark.parametrize("cost", [BitOps((1, 3, 16, 16)), ParameterBytes()], ids=lambda cost: cost.name)
def test_a_search_in_the_rfdn_like_space_meets_its_budget_too(tmp_path: Path, cost: Cost) -> None:
    torch.manual_seed(0)
    space = SRRFDNSpace(scale=2, width=12, cells=1, adq=False)
    cheapest, dearest = ArchitectureSelector(ChoiceTree.of(space), [Budget(cost, 1e15)], [cost.terms(space)]).range()
    maximum = (cheapest + dearest) / 2
    strategy = QuantNAS(costs=[Budget(cost, maximum)], architecture_learning_rate=0.3)
    low, high = torch.rand(8, 3, 16, 16), torch.rand(8, 3, 32, 32)
    data = TensorDataset(low, high)
    records: list[EpochRecord] = []
    evaluator = AccelerateEvaluator(data, data, epochs=3, steps_per_epoch=8, batch_size=2, on_epoch=records.append)
    run_experiment(space, evaluator, strategy, tmp_path)
    assert 0.95 * maximum <= cost.of_network(strategy.derive()) <= maximum
    assert records[-1].expected_costs[cost.name] == pytest.approx(0.975 * maximum, rel=0.15)


def test_a_search_with_a_budget_that_was_stopped_goes_on_exactly(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise Stop

    options = {"costs": [Budget(COST, 4e6)]}
    whole, sample, records = search(tmp_path, strategy=options)
    checkpoint = tmp_path / "search.ckpt"
    with pytest.raises(Stop):
        search(tmp_path, strategy=options, checkpoint=checkpoint, on_epoch=stop)
    resumed, again, continued = search(tmp_path, strategy=options, checkpoint=checkpoint)
    assert again == sample and continued == records
    multiplier = whole.objective.multipliers.values
    assert torch.equal(resumed.objective.multipliers.values, multiplier) and multiplier.abs().min() > 0
    for other in (Budget(COST, 4.1e6), Penalty(COST, 4e6)):
        with pytest.raises(InputError, match="other settings"):
            search(tmp_path, strategy={"costs": [other]}, checkpoint=checkpoint)


def test_costs_of_one_name_for_different_inputs_are_told_apart() -> None:
    larger, shape = BitOps((1, 3, 16, 16)), COST.input_shape
    goals = [Penalty(COST, 0.1), Budget(larger, 1e12), Penalty(larger, 0.1), Penalty(BitOps((2, *shape[1:])), 0.1)]
    strategy = QuantNAS(costs=goals)
    strategy.mutate_model(tiny_space())
    draw = strategy.distribution.draw()
    expected = strategy.objective.expected_costs(draw)
    size = f"{shape[2]}x{shape[3]}"
    assert list(expected) == ["bitops", "bitops@16x16", f"bitops@{size}"]
    assert expected["bitops@16x16"] == pytest.approx(expected["bitops"] * 256 / (shape[2] * shape[3]))
    _, parts = strategy.objective(torch.zeros(()), draw, t=0.0, epochs=2)
    assert {name: float(parts[name]) for name in expected} == expected


def test_penalties_without_a_finite_weight_or_without_anything_to_count_are_refused() -> None:
    class Costless(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.block = LayerChoice({"a": nn.ReLU(), "b": nn.Identity()}, label="block")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(x)

    for weight in (math.nan, -math.inf, "0.1"):
        with pytest.raises(InputError, match="weight of a penalty on bitops, .* use a finite number"):
            Penalty(COST, weight)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="penalty on bitops needs a space in which something has such a cost"):
        QuantNAS(costs=[Penalty(COST, 0.1)]).check(Costless())
    space, before = tiny_space(), torch.get_rng_state()
    QuantNAS(costs=[Penalty(COST, 0.1)]).check(space)
    assert torch.equal(torch.get_rng_state(), before)
