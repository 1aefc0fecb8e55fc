"""The options of a search are said once: whatever takes, keeps or explains them follows from there."""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_searches import search, tiny_data

from quantnas_ext.distribution.regularizers import Regularizer
from quantnas_ext.distribution.relaxation import RELAXATIONS
from quantnas_ext.errors import InputError
from quantnas_ext.quantization.noise.additive import NOISE_VARIANCE, NoiseMixture
from quantnas_ext.runs.config import Config, load_config
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.options import BatchOptions, EvaluatorOptions, LoopOptions, StrategyOptions, gathered
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.supernet.quantization_mode import Evaluation, Mode

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
NAMES = {
    "regularizer": typing.get_args(Regularizer),
    "relaxation": RELAXATIONS,
    "noise": tuple(NOISE_VARIANCE),
    "noise_mixture": typing.get_args(NoiseMixture),
    "quantization": typing.get_args(Mode),
    "evaluation": typing.get_args(Evaluation),
}


def names(kind: type[Any]) -> set[str]:
    return {option.name for option in fields(kind)}


def test_every_option_is_a_key_of_a_configuration_a_row_of_its_page_and_a_keyword() -> None:
    config = Config()
    rows = set(re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    sections = {StrategyOptions: "search.", LoopOptions: "search.", BatchOptions: "data."}
    for kind, section in sections.items():
        assert isinstance(getattr(config, section[:-1]), kind)
        assert {section + name for name in names(kind)} <= rows
        assert all(option.name in (kind.__doc__ or "") for option in fields(kind))
    # Of the rest the recipe decides one, as what it searches are images.
    assert names(EvaluatorOptions) - names(LoopOptions) - names(BatchOptions) - {"seed"} == {"channels_last"}
    for function, kind in ((QuantNAS, StrategyOptions), (AccelerateEvaluator, EvaluatorOptions)):
        keywords = inspect.signature(function).parameters
        assert {name: keywords[name].default for name in names(kind)} == vars(kind())


def test_a_configuration_reaches_strategy_and_evaluator_by_the_names_of_its_keys() -> None:
    changes = ["seed=3", "data.batch_size=5", "search.epochs=7", "search.entropy=0.25", "search.temperature=[4, 0.5]"]
    config = load_config(None, changes)
    options = QuantNAS(config.search).options
    assert type(options) is StrategyOptions
    assert options == StrategyOptions(entropy=0.25, temperature=(4.0, 0.5))
    assert QuantNAS(config.search, entropy=0.5).options == replace(options, entropy=0.5)
    found = gathered(EvaluatorOptions, config, config.data, config.search, channels_last=True)
    assert found == EvaluatorOptions(seed=3, batch_size=5, epochs=7, channels_last=True)
    assert AccelerateEvaluator(tiny_data(), tiny_data(), found).options == found
    with pytest.raises(InputError, match="search.temperature .* use 2 finite numbers above 0"):
        load_config(None, ["search.temperature=[1, 0]"])
    with pytest.raises(InputError, match="unknown option 'entropie'; did you mean 'entropy'"):
        QuantNAS(entropie=0.1)
    with pytest.raises(InputError, match="cannot be the options; give StrategyOptions"):
        QuantNAS(EvaluatorOptions())  # type: ignore[arg-type]


@pytest.mark.parametrize("option", NAMES)
def test_names_of_options_are_those_that_are_implemented(option: str) -> None:
    assert set(typing.get_args(typing.get_type_hints(StrategyOptions)[option])) == set(NAMES[option])


def test_a_checkpoint_holds_every_option_that_decides_and_an_older_one_is_refused_as_such(tmp_path: Path) -> None:
    file = tmp_path / "search.ckpt"
    search(tmp_path, epochs=1, steps_per_epoch=1, checkpoint=file)
    state = torch.load(file, weights_only=True)
    undecided = names(StrategyOptions) | names(EvaluatorOptions)
    assert undecided - state["fingerprint"].keys() == {"workers"}
    search(tmp_path, epochs=1, steps_per_epoch=1, checkpoint=file, workers=1)
    with pytest.raises(InputError, match="other settings: channels_last False and not True, entropy 0.0 and not 0.5;"):
        search(tmp_path, epochs=1, steps_per_epoch=1, checkpoint=file, channels_last=True, entropy=0.5)
    state["settings"] = state.pop("fingerprint")
    torch.save(state, file)
    with pytest.raises(InputError, match=r"search\.ckpt is the checkpoint of an older version of this package"):
        search(tmp_path, epochs=1, steps_per_epoch=1, checkpoint=file)
