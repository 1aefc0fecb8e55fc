"""What a user may write in a configuration, and what they are told where it is wrong."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest
import yaml

from quantnas_ext.errors import InputError
from quantnas_ext.runs.config import (
    Config,
    DataConfig,
    SearchConfig,
    SpaceConfig,
    TrainConfig,
    add_config_arguments,
    load_config,
    save_config,
    shipped_configs,
)


@pytest.fixture
def written(tmp_path: Path):
    """A function that writes a text to a configuration file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


def test_a_saved_configuration_loads_equal_whatever_differs_from_the_defaults(tmp_path: Path) -> None:
    config = Config(
        seed=7,
        run="runs/ö",
        space=SpaceConfig("sr_basic", {"scale": 2, "bits": [4, "w4a8"], "body": {"cells": 3, "adq": False, "x": None}}),
        data=DataConfig(train=["a", "no"], test={"Set5": "b", "1e-3": "c"}, validation_share=0.25),
        search=SearchConfig(steps_per_epoch=5, weight_decay=3e-8, noise="gaussian", bitops_penalty=-2.0),
        train=TrainConfig(precision="w4a8", from_supernet=True, learning_rate=1e-5),
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    whole = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert whole["search"].keys() == {f.name for f in dataclasses.fields(SearchConfig)}
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_file_holds_only_what_differs_and_later_overrides_win(written) -> None:
    path = written("search:\n  epochs: 3\nspace:\n  arguments: {scale: 4}\ntrain:\n")
    config = load_config(path, ["search.epochs=5", "search.epochs=6", "space.arguments.width=24", "data.train=[a, b]"])
    assert config.search.epochs == 6
    assert config.space.arguments == {"scale": 4, "width": 24}
    assert config.data.train == ["a", "b"]
    assert config.train == TrainConfig()
    assert load_config(None) == Config()


def test_yaml_1_1_readings_of_exponents_and_of_no_are_undone(written) -> None:
    config = load_config(written("search: {weight_learning_rate: 1e-3, mixed_precision: no}"), ["search.entropy=5e-4"])
    assert (config.search.weight_learning_rate, config.search.entropy) == (1e-3, 5e-4)
    assert config.search.mixed_precision == "no"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sead: 1", ["'sead'", "did you mean 'seed'"]),
        ("search: {epoch: 1}", ["'search.epoch'", "did you mean 'search.epochs'"]),
        ("epochs: 1", ["'epochs'", "did you mean 'search.epochs'"]),
        ("search: {noise: gausian}", ["'search.noise'", "did you mean 'gaussian'"]),
        ("search: {epochs: true}", ["'search.epochs' must be a whole number, not True"]),
        ("search: {epochs: 2.5}", ["'search.epochs' must be a whole number, not 2.5"]),
        ("search: {top_k: 1001}", ["'search.top_k' must be at least 1 and at most 1000, not 1001"]),
        ("search: {epochs: 0}", ["'search.epochs' must be at least 1, not 0"]),
        ("search: {epochs: 3, warmup_epochs: 3}", ["'search.warmup_epochs' (3)", "'search.epochs' (3)"]),
        ("search: {weight_learning_rate: fast}", ["'search.weight_learning_rate' must be a number, not 'fast'"]),
        ("search: {weight_learning_rate: .nan}", ["'search.weight_learning_rate' must be a number, not nan"]),
        ("search: {steps_per_epoch: 0}", ["'search.steps_per_epoch' must be at least 1"]),
        ("search: {steps_per_epoch: all}", ["'search.steps_per_epoch' must be a whole number or null"]),
        ("train: {iterations: 5, full_precision_iterations: 6}", ["'train.full_precision_iterations' (6)", "(5)"]),
        ("train: {learning_rate: 0}", ["'train.learning_rate' must be above 0"]),
        ("train: {precision: 1}", ["'train.precision'", "1 bits", "2 to 16"]),
        ("train: {precision: half}", ["'train.precision'", "'half'", "w4a8"]),
        ("data: {validation_share: 1}", ["'data.validation_share' must be above 0 and below 1"]),
        ("data: {train: photos}", ["'data.train' must be a list"]),
        ("data: {train: [a, 3]}", ["'data.train[1]' must be text, not 3"]),
        ("data: {test: [a]}", ["'data.test' must be a mapping"]),
        ("data: {test: {Set5: 5}}", ["'data.test.Set5' must be text"]),
        ("space: {arguments: {when: 2024-01-01}}", ["'space.arguments.when' must be text"]),
        ("space: sr_basic", ["'space' must be a mapping"]),
        ("seed: -1", ["'seed' must be at least 0"]),
        ("seed: 1\nseed: 2", ["line 2", "'seed' is written twice"]),
        ("seed: [1", ["not valid YAML"]),
        ("seed: !!python/object/apply:os.getcwd []", ["not valid YAML"]),
        ("- seed", ["must be a mapping"]),
        ("? [a, b]\n: 1", ["not valid YAML (line 1", "a key must be a plain name"]),
        ("space: {arguments: &a {x: *a}}", ["not valid YAML (line 1", "alias '*a'"]),
        ("space: {arguments: {<<: {x: 1}, x: 2}}", ["'x' is written twice"]),
        ("seed: !!bool maybe", ["not valid YAML"]),
        ("seed: !!int ''", ["not valid YAML"]),
        (f"search: {{epochs: 0x{'f' * 9999}}}", ["'search.epochs' must be a whole number"]),
        (f"space: {{arguments: {{width: 0x{'f' * 9999}}}}}", ["'space.arguments.width'"]),
        ("[" * 5000, ["not valid YAML"]),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence_that_names_file_and_key(written, text, said) -> None:
    path = written(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for part in [str(path), *said]:
        assert part in sentence


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("search.epochs", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("search..epochs=3", "KEY=VALUE"),
        ("search.epochs=[", "not valid YAML"),
        ("search.epoch=3", "did you mean 'search.epochs'"),
        ("seed.x=3", "'seed' must be a whole number"),
        ("run=", "'run' must be text, not None"),
    ],
)
def test_a_wrong_override_is_named_as_the_user_wrote_it(override: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(None, ["seed=1", override])
    assert f"'--set {override}'" in str(caught.value)
    assert said in str(caught.value)


def test_values_that_clash_only_together_are_refused_whatever_their_order(written) -> None:
    path = written("search: {epochs: 9, warmup_epochs: 5}")
    assert load_config(path, ["search.epochs=2", "search.warmup_epochs=1"]).search.epochs == 2
    with pytest.raises(InputError, match=r"--set search\.epochs=2: 'search\.warmup_epochs' \(5\)"):
        load_config(path, ["search.epochs=2"])


def test_missing_unreadable_and_unknown_configurations_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent.yaml' is not a file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="unknown configuration 'dmeo'; did you mean 'demo'"):
        load_config("dmeo")
    for impossible in ("a" * 5000 + ".yaml", "a\0b.yaml"):
        with pytest.raises(InputError, match="is not a file"):
            load_config(tmp_path / impossible)
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff")
    with pytest.raises(InputError, match="picture.yaml': not a text file"):
        load_config(tmp_path / "picture.yaml")


def test_an_invalid_configuration_is_not_saved_and_leaves_the_old_file(tmp_path: Path) -> None:
    save_config(Config(seed=5), tmp_path / "config.yaml")
    with pytest.raises(InputError, match="'train.iterations' must be at least 1"):
        save_config(Config(train=TrainConfig(iterations=0)), tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml").seed == 5


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_configuration_loads_by_its_name(name: str) -> None:
    assert load_config(name) == load_config(shipped_configs()[name])


def test_recipes_take_a_configuration_and_repeated_overrides() -> None:
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, default="demo")
    arguments = parser.parse_args(["--set", "seed=3", "--set", "search.epochs=15"])
    config = load_config(arguments.config, arguments.overrides)
    assert (config.seed, config.search.epochs) == (3, 15)
