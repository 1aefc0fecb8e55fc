"""The recipe that measures latencies, and the search that takes its table."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.costs.latency.table import LatencyTable
from quantnas_ext.errors import InputError
from quantnas_ext.runs.config import load_config
from quantnas_ext.runs.search_goals import goals_of
from recipes import measure_latency, search

CONFIG = """
space: {arguments: {scale: 2, width: 6, cells: 1, adq: false, bits: [4, 8], head: [conv_3x3], body: [conv_1x1],
  skip: [conv_1x1], upsample: [conv_3x3], tail: [conv_1x1, conv_3x3]}}
data: {train: [data], patch: 12, batch_size: 2}
search: {epochs: 1, steps_per_epoch: 2, threads: 1}
run: run
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a configuration and two images; recipes set the number of threads."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(CONFIG)
    for folder, side in (("data/HR", 32), ("data/LRx2", 16)):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("a", "b"):
            Image.effect_noise((side, side), 50).convert("RGB").save(tmp_path / folder / f"{name}.png")
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_the_recipe_measures_and_every_bad_input_is_refused_before_anything_is_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = ["--config", "my.yaml", "--side", "12", "--output"]
    measure_latency.main([*measure, "table.json"])
    assert "for one 12x12 image" in capsys.readouterr().out
    table = LatencyTable.load("table.json")
    assert table.input_shape == (1, 3, 12, 12)
    with_table = ["search.latency_table=table.json", "search.latency_budget=900", "search.bytes_penalty=0.1"]
    bitops, size, milliseconds = goals_of(load_config("my.yaml", with_table).search)
    assert milliseconds == Budget(table, 900.0) and (size.cost.name, size.weight) == ("bytes", 0.1)
    assert bitops == Penalty(BitOps((1, 3, 32, 32)), 1e-3)
    Path("damaged.json").write_text("{")
    before = sorted(place.rglob("*"))
    for arguments, reason in {
        ("table.json",): "'table.json' already exists",
        ("new/table.json",): "folder 'new' does not exist",
        ("/proc/table.json",): "cannot be written",
        ("x" * 300,): "cannot be written",
        ("new.json", "--side", "0"): "--side 0 is not possible",
        ("new.json", "--set", "space.arguments.widht=3"): "did you mean 'width'",
    }.items():
        with pytest.raises(InputError, match=reason):
            measure_latency.main([*measure, *arguments])
    for overrides, reason in {
        ("search.latency_budget=3",): "'search.latency_budget' .3. needs times; give 'search.latency_table'",
        ("search.latency_penalty=0.1",): "'search.latency_penalty' .0.1. needs times",
        ("search.latency_table=absent.json",): "latency table 'absent.json' does not exist",
        ("search.latency_table=damaged.json",): "'damaged.json' is not a latency table",
        ("search.latency_table=table.json", "space.arguments.width=12"): "measured for another space",
        ("search.latency_table=table.json", "search.threads=2"): "another machine: threads 1 and not 2",
        ("search.latency_table=table.json", "search.latency_budget=1e-6"): "keeps the budget of 1e-06 latency_ms",
        ("search.bytes_budget=10",): "keeps the budget of 10 bytes",
    }.items():
        sets = [part for override in overrides for part in ("--set", override)]
        with pytest.raises(InputError, match=reason):
            search.main(["--config", "my.yaml", *sets])
    assert sorted(place.rglob("*")) == before
    search.main(["--config", "my.yaml", *(part for text in with_table for part in ("--set", text))])
    assert "latency_ms: " in (out := capsys.readouterr().out) and " of 900 (" in out and "bytes: " in out
    (entry, *_) = json.loads(Path("run/history.json").read_text())["epochs"]
    assert entry["expected_latency_ms"] == pytest.approx(sum(time for _, time in table.times), rel=0.9)
