"""The latency table: what it times, its expectation, its file, and that only its own machine and space take it."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from small_searches import search, tiny_space
from torch import nn

from quantnas_ext.costs.cost import BitOps, ExpectedCost, sample_cost
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.costs.latency import table
from quantnas_ext.costs.latency.segments import cut_space
from quantnas_ext.costs.latency.table import LatencyTable
from quantnas_ext.deriving.ranking import ArchitectureSelector
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import QuantConv2d, set_quantization
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.spaces import SRBasicSpace, SRRFDNSpace

CPU = torch.device("cpu")
SHAPE = (1, 3, 16, 16)


def basic(**more: Any) -> SRBasicSpace:
    lists = {"head": ["conv_3x3", "conv_5x5"], "body": ["fac_3x3", "conv_5x5"], "skip": ["skip_connect", "conv_1x1"]}
    arguments = {"scale": 2, "width": 6, "cells": 2, "bits": [4, 8], "upsample": ["conv_3x3"], "tail": ["conv_1x1"]}
    return SRBasicSpace(**{**arguments, **lists, **more})


def rfdn(**more: Any) -> SRRFDNSpace:
    lists = dict.fromkeys(("body", "distil", "upsample", "tail"), ["conv_1x1", "growth1_3x3"])
    return SRRFDNSpace(**{"scale": 2, "width": 12, "cells": 2, "share_cells": False, "bits": [4, 8], **lists, **more})


class Foreign(ModelSpace):
    """Layer choices one within another, one of them called twice, with a quantized layer that is not searched."""

    def __init__(self) -> None:
        super().__init__()
        inner = LayerChoice([nn.Conv2d(4, 4, 3, padding=1), nn.Tanh()], label="inner")
        deep = nn.Sequential(QuantConv2d(4, 4, 1), inner, nn.Conv2d(4, 4, 1))
        self.outer = LayerChoice({"deep": deep, "plain": nn.Conv2d(4, 4, 1)}, label="outer")
        self.stem, self.exit = QuantConv2d(3, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.exit(self.outer(self.outer(x) + x))


def measured(space: nn.Module, shape: tuple[int, ...] = SHAPE) -> LatencyTable:
    return LatencyTable.measure(space, shape, rounds=2)


def spread(table: LatencyTable) -> LatencyTable:
    """The same table with times that do not depend on this machine's mood."""
    times = tuple((choices, float(1 + index % 3)) for index, (choices, _) in enumerate(table.times))
    return LatencyTable(input_shape=table.input_shape, machine=table.machine, space=table.space, times=times)


def random_samples(space: ModelSpace, count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    tree = ChoiceTree.of(space)
    return [
        tree.complete({c.label: c.values[int(torch.randint(len(c.values), (), generator=generator))] for c in tree})
        for _ in range(count)
    ]


SPACES: list[Callable[[], ModelSpace]] = [basic, lambda: basic(share_cells=False, adq=False), rfdn, Foreign]


@pytest.mark.parametrize("space", SPACES)
def test_the_parts_of_an_architecture_compute_what_its_float_network_computes(space: Callable[[], ModelSpace]) -> None:
    model = space()
    before = torch.get_rng_state()
    parts = cut_space(model, SHAPE, CPU).parts
    assert torch.equal(torch.get_rng_state(), before)
    assert not any("forward" in vars(module) for module in model.modules())
    for sample in random_samples(model, 3):
        network = model.freeze(sample)
        (whole,) = cut_space(network, SHAPE, CPU).parts
        of_parts = Counter(
            operation
            for part in parts
            if all(sample.get(label) == value for label, value in part.context)
            for operation in part.operations
        )
        assert of_parts == Counter(whole.operations)
        assert not any("round" in operation for operation in of_parts)  # no quantizer is timed
        # And the network itself, run in plain sight, does the same multiplications.
        set_quantization(network, False)
        with torch.profiler.profile(acc_events=True) as profile, torch.no_grad():
            network.eval()(torch.rand(SHAPE))
        calls = {event.key: event.count for event in profile.key_averages()}
        assert calls["aten::convolution"] == sum(n for name, n in of_parts.items() if "convolution" in name)


@pytest.mark.parametrize("space", SPACES)
def test_the_expectation_for_one_hot_choices_is_the_sum_of_the_files_entries(
    space: Callable[[], ModelSpace], tmp_path: Path
) -> None:
    model = space()
    table = measured(model)
    table.save(tmp_path / "table.json")
    entries = json.loads((tmp_path / "table.json").read_text())["times"]
    distribution = ArchitectureDistribution(ChoiceTree.of(model))
    cost = ExpectedCost(table, model, distribution)
    costs = set()
    for sample in random_samples(model, 5):
        for choice in distribution.tree:
            chosen = torch.tensor([value == sample.get(choice.label, choice.values[0]) for value in choice.values])
            distribution.logits[choice.label].data = torch.where(chosen, 1e4, -1e4)
        expected = sum(e["milliseconds"] for e in entries if e["choices"].items() <= sample.items())
        assert cost(distribution.draw()).item() == pytest.approx(expected, rel=1e-12)
        assert cost.of(sample) == pytest.approx(expected, rel=1e-12)
        costs.add(expected)
    assert len(costs) > 1 and all(entry["milliseconds"] > 0 for entry in entries)


def test_a_choice_of_several_places_has_the_sum_of_their_times_and_equal_candidates_have_equal_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apart = dict(measured(basic(share_cells=False)).times)
    for operation in ("fac_3x3", "conv_5x5"):
        one, other = (apart[frozenset({(f"body{cell}_1", operation)})] for cell in (0, 1))
        assert one == other
    monkeypatch.setattr(table, "median_times", lambda runs, *_: [1.0] * len(runs))
    shared = dict(measured(basic(cells=3)).times)
    assert shared[frozenset()] == 1.0
    assert shared[frozenset({("head_0", "conv_5x5")})] == 1.0
    assert shared[frozenset({("body_skip", "conv_1x1")})] == 3.0
    nested = dict(measured(Foreign()).times)
    assert nested[frozenset({("outer", "deep")})] == nested[frozenset({("outer", "deep"), ("inner", 1)})] == 2.0


def test_the_gradient_of_the_expectation_equals_finite_differences_and_precisions_have_none() -> None:
    model = rfdn(cells=1)
    torch.manual_seed(0)
    distribution = ArchitectureDistribution(ChoiceTree.of(model))
    for logits in distribution.parameters():
        logits.data.normal_()
    table = spread(measured(model))
    ExpectedCost(table, model, distribution)(distribution.draw()).backward()
    values = {choice.label: choice.values for choice in distribution.tree}

    def expectation(label: str, index: int, step: float) -> float:
        """In double precision and without the code under test."""
        p = {name: logits.detach().double() for name, logits in distribution.logits.items()}
        p[label][index] += step
        p = {name: logits.softmax(0) for name, logits in p.items()}
        return sum(time * math.prod(float(p[n][values[n].index(v)]) for n, v in c) for c, time in table.times)

    slopes = []
    for label, logits in distribution.logits.items():
        for index in range(len(logits)):
            slope = (expectation(label, index, 1e-4) - expectation(label, index, -1e-4)) / 2e-4
            assert logits.grad is not None and float(logits.grad[index]) == pytest.approx(slope, rel=1e-4, abs=1e-6)
            assert slope == 0 or not label.endswith("__bits")
            slopes.append(abs(slope))
    assert max(slopes) > 0.1


def test_a_saved_table_is_loaded_equal_and_holds_for_the_space_with_other_precisions(tmp_path: Path) -> None:
    table = measured(basic())
    table.save(tmp_path / "table.json")
    loaded = LatencyTable.load(tmp_path / "table.json")
    assert loaded == table and loaded.fingerprint() == table.fingerprint()
    assert loaded.terms(basic(bits=[2, 32])) == dict(table.times)
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (basic(width=12), "widths, scale or the layers around them differ"),
        (basic(adq=False), "widths, scale or the layers around them differ"),
        (basic(cells=3), "widths, scale or the layers around them differ"),
        (basic(head=["conv_3x3"]), "it has 'conv_5x5' for choice 'head_0'"),
        (basic(tail=["conv_1x1", "conv_3x3"]), "it lacks 'conv_3x3' for choice 'tail_0'"),
        (rfdn(), "it has 'conv_5x5' for choice 'body_0'"),
        (Foreign(), "for choice 'body_0'"),
    ],
)
def test_a_table_of_another_space_is_refused_and_what_differs_is_named(other: ModelSpace, reason: str) -> None:
    table = measured(basic())
    with pytest.raises(InputError, match=f"measured for another space: .*{reason}.*recipes/measure_latency.py"):
        table.terms(other)


def test_a_table_of_another_machine_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    measured(basic()).save(file)
    content = json.loads(file.read_text())
    for field, value in {"processor": "Z80", "device": "cuda: H100", "threads": 99, "torch": "1.0"}.items():
        file.write_text(json.dumps({**content, "machine": {**content["machine"], field: value}}))
        with pytest.raises(InputError, match=f"measured on another machine: {field} .*{value}.*measure_latency.py"):
            LatencyTable.load(file)


def test_damaged_files_are_refused_with_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    with pytest.raises(InputError, match="does not exist; make it with"):
        LatencyTable.load(file)
    table = measured(basic())
    table.save(file)
    text = file.read_text()
    content = json.loads(text)
    first, *rest = content["times"]
    damaged = {
        text[: len(text) // 2]: "is not a latency table, or is damaged",
        "[]": "is not a latency table",
        "[" * 100_000: "is not a latency table",
        json.dumps({**content, "version": 2}): "has version 2; this program reads version 1",
        json.dumps({**content, "more": 1}): "unknown key 'more'",
        json.dumps({**content, "machine": {**content["machine"], "threads": "2"}}): "'machine.threads' must be",
        json.dumps({**content, "input_shape": [1, 3, 0, 8]}): "input_shape .1, 3, 0, 8. is not the shape",
        json.dumps({**content, "space": 7}): "'space' must be text",
        json.dumps({**content, "times": {}}): "'times' must be a list",
        json.dumps({**content, "times": [*rest, rest[0]]}): "it has two times for",
        json.dumps({**content, "times": [{"choices": {}}]}): "missing .* 'milliseconds'",
        json.dumps({**content, "times": [{**first, "choices": {"head_0": [1]}}]}): "times.0..choices.head_0' must be",
    }
    for wrong in (-1, True, "one", float("nan"), float("inf"), 1e300):
        damaged[json.dumps({**content, "times": [{**first, "milliseconds": wrong}]})] = "times.0..milliseconds' must be"
    for broken, reason in damaged.items():
        file.write_text(broken)
        with pytest.raises(InputError, match=reason) as caught:
            LatencyTable.load(file)
        assert "\n" not in str(caught.value)
    file.write_text(json.dumps({**content, "times": rest}))
    with pytest.raises(InputError, match="lacks times of this space"):
        LatencyTable.load(file).terms(basic())
    with pytest.raises(InputError, match="number of rounds, 0 is not possible"):
        LatencyTable.measure(basic(), SHAPE, rounds=0)


@pytest.mark.parametrize("space", [basic, rfdn])
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_selected_architecture_keeps_and_uses_a_budget_of_latency(space: Callable[[], Any], share: float) -> None:
    model = space()
    table = spread(measured(model))
    tree, terms = ChoiceTree.of(model), table.terms(model)
    cheapest, dearest = ArchitectureSelector(tree, [Budget(table, 1e9)], [terms]).range()
    maximum = cheapest + share * (dearest - cheapest)
    torch.manual_seed(0)
    distribution = ArchitectureDistribution(tree)
    for logits in distribution.parameters():
        logits.data.normal_()
    sample = ArchitectureSelector(tree, [Budget(table, maximum)], [terms]).select(distribution.log_probabilities())
    assert 0.95 * maximum <= sample_cost(terms, tree.complete(sample)) <= maximum
    with pytest.raises(InputError, match=r"budget of .* latency_ms; they cost from .* \(cheapest\) to"):
        ArchitectureSelector(tree, [Budget(table, 0.99 * cheapest)], [terms])


def test_searches_follow_a_penalty_and_keep_a_budget_of_latency(tmp_path: Path) -> None:
    table = spread(measured(tiny_space(), (1, 3, 8, 8)))
    terms = table.terms(tiny_space())
    tree = ChoiceTree.of(tiny_space())
    cheapest, dearest = ArchitectureSelector(tree, [Budget(table, 1e9)], [terms]).range()
    for weight, extreme in ((100.0, cheapest), (-100.0, dearest)):
        strategy, sample, records = search(tmp_path, strategy={"costs": [Penalty(table, weight)]})
        assert sample_cost(terms, sample) == extreme
        assert records[-1].expected_costs["latency_ms"] == pytest.approx(extreme, rel=0.1)
    middle = (cheapest + dearest) / 2
    goals = [Penalty(BitOps((1, 3, 8, 8)), 0.0), Budget(table, middle)]
    strategy, sample, _ = search(tmp_path, strategy={"costs": goals})
    spent = sample_cost(terms, sample)
    assert 0.95 * middle <= spent <= middle
    bitops, line = strategy.objective.spent(sample)
    assert bitops.startswith("bitops: ") and line == f"latency_ms: {spent:,.6g} of {middle:,.6g} ({spent / middle:.1%})"


def test_a_search_does_not_go_on_with_another_table(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise Stop

    table = spread(measured(tiny_space(), (1, 3, 8, 8)))
    checkpoint = tmp_path / "search.ckpt"
    with pytest.raises(Stop):
        search(tmp_path, strategy={"costs": [Penalty(table, 0.1)]}, checkpoint=checkpoint, on_epoch=stop)
    (choices, first), *rest = table.times
    other = LatencyTable(
        input_shape=table.input_shape, machine=table.machine, space=table.space, times=((choices, first + 1), *rest)
    )
    with pytest.raises(InputError, match="other settings"):
        search(tmp_path, strategy={"costs": [Penalty(other, 0.1)]}, checkpoint=checkpoint)
    search(tmp_path, strategy={"costs": [Penalty(table, 0.1)]}, checkpoint=checkpoint)
