"""Files of version 0.1 still load, or are refused with the sentence that says what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.counted import CountedCost
from quantnas_ext.costs.latency.file import read_latency_file
from quantnas_ext.errors import InputError
from quantnas_ext.reporting.figures import save_figure
from quantnas_ext.reporting.progress import search_figure
from quantnas_ext.runs.config import load_config, save_config
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space
from quantnas_ext.sr.training.arch import trained_network

OLD = Path(__file__).parents[1] / "files_of_0_1"


def test_an_architecture_keeps_its_costs_and_is_written_in_todays_form(tmp_path: Path) -> None:
    old = Architecture.load(OLD / "architecture.yaml")
    names = [("bitops", (1, 3, 32, 32)), ("bitops", (1, 3, 256, 256)), ("bytes", None)]
    assert [(cost.name, cost.input) for cost in old.costs] == names
    assert old.costs == Architecture.of(old.space, old.arguments, old.choices).costs
    assert old.costs[0] == CountedCost("bitops", old.cost["bitops_32"], (1, 3, 32, 32))
    old.save(tmp_path / "architecture.yaml")
    assert "version: 2" in (tmp_path / "architecture.yaml").read_text()
    assert Architecture.load(tmp_path / "architecture.yaml") == old


def test_weights_fit_their_network_of_today() -> None:
    network, _ = trained_network(str(OLD / "architecture.yaml"), str(OLD / "weights.safetensors"))
    assert network.eval()(torch.rand(1, 3, 6, 7)).shape == (1, 3, 12, 14)


def test_a_configuration_loads_with_todays_defaults_for_new_keys(tmp_path: Path) -> None:
    config = load_config(OLD / "config.yaml", ["run=runs/new"])
    assert (config.search.epochs, config.space.arguments["width"], config.plugins, config.search.costs) == (
        1,
        4,
        [],
        [],
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_a_history_is_drawn(tmp_path: Path) -> None:
    save_figure(search_figure(json.loads((OLD / "history.json").read_text())), tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 1000


def test_a_latency_table_is_read() -> None:
    table = read_latency_file(OLD / "latency.json")
    assert table.input_shape == [1, 3, 8, 8] and len(table.times) > 5


def test_a_checkpoint_of_an_older_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    shutil.copy(OLD / "search.ckpt", tmp_path)
    arguments = Architecture.load(OLD / "architecture.yaml").arguments
    images = TensorDataset(torch.rand(4, 3, 8, 8), torch.rand(4, 3, 16, 16))
    evaluator = AccelerateEvaluator(images, images, epochs=1, batch_size=2, checkpoint=tmp_path / "search.ckpt")
    with pytest.raises(InputError, match=r"is the checkpoint of an older version .*; delete it to start anew"):
        run_experiment(build_space("sr_basic", arguments), evaluator, QuantNAS(), tmp_path / "nni")
