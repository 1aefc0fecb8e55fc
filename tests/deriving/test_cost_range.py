"""What architectures can cost, told before a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_searches import samples, tiny_space

from quantnas_ext.costs.cost import BitOps, ParameterBytes
from quantnas_ext.deriving.cost_range import cost_ranges
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from recipes import search


def test_the_range_of_costs_holds_every_architecture_and_is_reached() -> None:
    torch.manual_seed(0)
    space, before = tiny_space(), torch.get_rng_state()
    costs = [BitOps((1, 3, 8, 8)), ParameterBytes((1, 3, 8, 8))]
    ranges = cost_ranges(space, costs)
    assert torch.equal(torch.get_rng_state(), before)
    tree = ChoiceTree.of(space)
    all_of_them = [sum_of(cost.terms(space), samples(tree)) for cost in costs]
    for found, values in zip(ranges, all_of_them, strict=True):
        assert (found.least, found.largest) == (min(values), max(values))
        assert found.least < found.uniform < found.largest
    bitops = ranges[0]
    assert bitops.said_of(bitops.least / 2).startswith("cannot be met")
    assert bitops.said_of(bitops.least).startswith("can be met")
    assert bitops.said_of(bitops.largest).startswith("limits nothing")


def sum_of(terms: Any, architectures: Any) -> list[float]:
    made = [set(sample.items()) for sample in architectures]
    return [sum(cost for choices, cost in terms.items() if choices <= one) for one in made]


def test_a_dry_run_tells_costs_and_budgets_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    search.main(["--dry-run", "--set", "search.bitops_budget=2e9", "--set", "search.bytes_budget=40000"])
    said = capsys.readouterr().out
    assert "BitOps at 32 × 32" in said and "516.69 M" in said and "8.33 G" in said
    assert "the budget of 2e+09 bitops can be met" in said and "the budget of 40000 bytes can be met" in said
    with pytest.raises(InputError, match="no architecture of this space keeps the budget"):
        search.main(["--dry-run", "--set", "search.bitops_budget=1e8"])
    assert "cannot be met: no architecture costs less than 516,685,824" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
