"""The configurations that come with the package describe spaces that can be built."""

import inspect

import pytest

from quantnas_ext.nn.esa import SMALLEST_SIDE
from quantnas_ext.runs.config import load_config, shipped_configs
from quantnas_ext.spaces import SPACES, build_space


@pytest.mark.parametrize("name", shipped_configs())
def test_the_space_of_every_shipped_configuration_can_be_built_and_searched_as_configured(name: str) -> None:
    config = load_config(name)
    space = build_space(config.space.name, config.space.arguments)
    assert sorted(label for stage in space.diagram() for label in stage.blocks) == sorted(
        label for label in space.simplify() if "__" not in label
    )
    assert config.search.warmup_epochs < config.search.epochs
    if config.space.name == "sr_rfdn":
        assert min(config.data.patch, config.train.patch) >= SMALLEST_SIDE


@pytest.mark.parametrize(("name", "warmup"), [("sr_basic_x4", 0), ("sr_rfdn_x4", 9)])
def test_the_papers_configurations_have_its_settings(name: str, warmup: int) -> None:
    config = load_config(name)
    assert (config.search.epochs, config.search.warmup_epochs) == (20, warmup)
    assert (config.data.batch_size, config.data.patch, config.data.train) == (32, 45, [])
    assert (config.search.entropy, config.search.weight_learning_rate, config.train.learning_rate) == (1e-3, 1e-3, 1e-4)
    assert (config.search.architecture_learning_rate, config.search.gradient_clip) == (3e-4, 5.0)
    defaults = inspect.signature(SPACES[config.space.name]._init_wrapped).parameters
    for kind in ("body", "distil", "skip", "head", "tail"):  # written out in the file, the same as the space's own
        if kind in defaults:
            assert config.space.arguments[kind] == list(defaults[kind].default)


@pytest.mark.parametrize("name", ["sr_basic_x4", "sr_rfdn_x4"])
def test_the_small_configurations_search_the_papers_candidates_in_enough_steps_to_decide(name: str) -> None:
    small, papers = load_config(f"{name}_small"), load_config(name)
    assert small.space.name == papers.space.name
    differing = {
        argument
        for argument, value in papers.space.arguments.items()
        if small.space.arguments.get(argument, value) != value
    }
    assert differing <= {"width", "cells"}
    assert set(small.space.arguments) == set(papers.space.arguments)
    assert small.search.steps_per_epoch is not None and small.data.photographs is not None
    architecture_steps = (small.search.epochs - small.search.warmup_epochs) * small.search.steps_per_epoch
    assert small.search.architecture_learning_rate >= 10 / architecture_steps
