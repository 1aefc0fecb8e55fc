"""From a configuration to the goals of a search: costs by name, also a user's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from quantnas_ext.costs.cost import COSTS, BitOps, Cost, ParameterBytes, register_cost
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.errors import InputError
from quantnas_ext.runs.config import Config, load_config, save_config
from quantnas_ext.runs.search_goals import goals_of

PLUGIN = """
from dataclasses import dataclass

from quantnas_ext.costs.cost import Cost, register_cost


@register_cost
@dataclass(frozen=True)
class Traffic(Cost):
    per_weight: float = 1.0
    name = "traffic"

    def layer_cost(self, layer, precision):
        return self.per_weight * layer.weights * precision.weight_bits
"""


@pytest.fixture
def registry() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    known = dict(COSTS)
    yield
    COSTS.clear()
    COSTS.update(known)


@pytest.mark.usefixtures("registry")
def test_a_cost_of_a_plugin_is_one_file_and_is_named_in_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_costs.py").write_text(PLUGIN)
    (tmp_path / "mine.yaml").write_text(
        """
plugins: [my_costs.py]
search:
  costs:
    - {cost: bitops, budget: 1.5e9, input: [1, 3, 48, 48]}
    - {cost: traffic, penalty: 0.1, arguments: {per_weight: 2.5}}
"""
    )
    config = load_config(tmp_path / "mine.yaml")
    limit, penalty = goals_of(config.search)
    assert limit == Budget(BitOps((1, 3, 48, 48)), 1.5e9)
    assert (penalty.cost.name, penalty.cost.per_weight, penalty.weight) == ("traffic", 2.5, 0.1)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config  # which imports nothing twice
    for change, message in {
        "search.costs=[{cost: trafic}]": "did you mean 'traffic'",
        "search.costs=[{cost: traffic, arguments: {per_wait: 1}}]": "did you mean 'per_weight'",
        "search.costs=[{cost: latency_ms, arguments: {tables: x}}]": "takes one argument, 'table'",
    }.items():
        with pytest.raises(InputError, match=message):
            goals_of(load_config("mine.yaml", [change]).search)


def test_the_short_keys_stand_for_entries_and_one_cost_has_one_goal() -> None:
    short = ["search.bitops_budget=2e9", "search.bytes_penalty=0.5"]
    listed = ["search.costs=[{cost: bitops, budget: 2e9}, {cost: bytes, penalty: 0.5}]"]
    assert goals_of(load_config(None, short).search) == goals_of(load_config(None, listed).search)
    assert goals_of(Config().search) == [Penalty(BitOps((1, 3, 32, 32)), 1e-3)]
    sizes = goals_of(load_config(None, ["search.costs=[{cost: bytes, penalty: 0.5}]"]).search)
    assert sizes == [Penalty(BitOps(), 1e-3), Penalty(ParameterBytes(), 0.5)]
    with pytest.raises(InputError, match="names bitops, and so do keys of its own"):
        goals_of(load_config(None, [*listed, "search.bitops_budget=1e9"]).search)


@pytest.mark.parametrize("content", [None, "import nowhere_to_be_found", "1 / 0", "def broken("])
def test_a_plugin_that_fails_is_named_with_its_reason(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "my_costs.py").write_text(content)
    with pytest.raises(InputError, match="plugin 'my_costs.py' cannot be imported"):
        load_config(None, ["plugins=[my_costs.py]"])
    with pytest.raises(InputError, match="plugin 'no_such_module' cannot be imported .ModuleNotFoundError"):
        load_config(None, ["plugins=[no_such_module]"])


@pytest.mark.usefixtures("registry")
def test_a_name_stands_for_one_cost() -> None:
    with pytest.raises(InputError, match="Mine cannot be cost 'bitops', as BitOps is"):
        register_cost(type("Mine", (Cost,), {"name": "bitops"}))
    for nameless in (Cost, type("Mine", (Cost,), {}), int):
        with pytest.raises(InputError, match="cannot be registered"):
            register_cost(nameless)
