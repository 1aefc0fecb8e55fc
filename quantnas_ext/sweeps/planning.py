"""Which trials a sweep has: what each is called, and the configuration that it runs."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantnas_ext.arguments import name_among
from quantnas_ext.errors import InputError, about, shown
from quantnas_ext.runs.config import Config, load_config
from quantnas_ext.sweeps.sweep_file import MOST_TRIALS, SweepConfig

METHODS: dict[str, list[str]] = {
    "noise": ["search.quantization=noise"],
    "direct": ["search.quantization=direct"],
    "direct_separate": ["search.quantization=direct_separate"],
    "two_step": [],
    "uniform": [],
    "random": ["train.from_supernet=false"],
    "darts": [],
}
"""How a trial comes to its architecture, and what its configuration has for that."""

WITHOUT_BUDGET = ("darts",)
"""Methods that keep no budget: a sweep over budgets has each of them once."""

_BUDGETS = ("search.bitops_budget", "search.bytes_budget", "search.latency_budget")

_LONGEST = 80  # characters of a trial's name


@dataclass(frozen=True)
class PlannedTrial:
    """One trial.

    Attributes:
        name: of its folder.
        parameters: what tells it from others.
        method: one of ``METHODS``, or ``architecture``.
        config: that it runs; its ``run`` is the trial's folder.
    """

    name: str
    parameters: dict[str, Any]
    method: str
    config: Config


def plan_grid(sweep: SweepConfig, trials: Path) -> list[PlannedTrial]:
    """All trials of a sweep over lists, those that share a warm-up far from each other.

    Args:
        sweep: with a list of values for every parameter.
        trials: folder of their folders.

    Raises:
        InputError: there are none or too many, or the configuration of one is not possible.
    """
    for key, values in sweep.parameters.items():
        if not isinstance(values, list) or not values:
            raise InputError(
                f"'parameters.{key}' must be a list of at least one value in a grid, not {shown(values)}; NNI's own "
                "search spaces go with a tuner of NNI's, as in tuner: {name: TPE}"
            )
    most = sweep.trials or MOST_TRIALS
    # Methods and seeds change fastest: neighbours then have no warm-up in common to wait for.
    keys = sorted(sweep.parameters, key=lambda key: key in ("method", "seed"))
    count = math.prod(len(sweep.parameters[key]) for key in keys)
    if count > most:
        raise InputError(f"'parameters' make a grid of {count:,} trials, and {most:,} are the most; give shorter lists")
    found: dict[str, PlannedTrial] = {}
    for values in itertools.product(*(sweep.parameters[key] for key in keys)):
        trial = plan_trial(sweep, dict(zip(keys, values, strict=True)), trials)
        found.setdefault(trial.name, trial)
    return list(found.values())


def plan_trial(sweep: SweepConfig, parameters: Mapping[str, Any], trials: Path) -> PlannedTrial:
    """The trial of some parameters.

    Raises:
        InputError: its method is unknown, or its configuration not possible.
    """
    method = parameters.get("method")
    if method is not None:
        name_among("method", method, METHODS)
    kept = {key: value for key, value in parameters.items() if method not in WITHOUT_BUDGET or key not in _BUDGETS}
    name = trial_name(kept)
    changes = [f"{key}={json.dumps(value)}" for key, value in kept.items() if key != "method"]
    changes += METHODS[method] if method else []
    changes += [f"{key}=null" for key in _BUDGETS if method in WITHOUT_BUDGET]
    with about(f"trial '{name}'"):
        config = load_config(sweep.config, [*sweep.set, *changes, f"run={json.dumps(str(trials / name))}"])
        config.data.check_one_test("a sweep")
    search = dataclasses.replace(config.search, threads=sweep.threads or config.search.threads)
    config = dataclasses.replace(config, search=search)
    return PlannedTrial(name, kept, method or config.search.quantization, config)


def trial_name(parameters: Mapping[str, Any]) -> str:
    """A name for a folder, the same for the same parameters in any order and another for others.

    It tells them as far as that is short: ``noise_bitops_budget_1.5e9_seed_0``.
    """
    words, exact = [], True
    for key in sorted(parameters, key=lambda key: (key != "method", key.rpartition(".")[2], key)):
        value = parameters[key]
        text, whole = _word(value)
        words.append(text if key == "method" else f"{key.rpartition('.')[2]}_{text}")
        exact &= whole
    short = [key.rpartition(".")[2] for key in parameters]
    name = "_".join(words)
    if exact and len(set(short)) == len(short) and len(name) <= _LONGEST:
        return name
    content = json.dumps(dict(sorted(parameters.items())), sort_keys=True)
    return f"{name[:_LONGEST]}_{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _word(value: Any) -> tuple[str, bool]:
    """A value as part of a name, and whether no other value has the same."""
    if isinstance(value, bool) or value is None:
        return str(value).lower(), True
    if isinstance(value, int | float):
        text = f"{value:.6g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
        return text, float(text) == value
    text = re.sub(r"[^A-Za-z0-9.]+", "_", str(value)).strip("_.")
    return text, text == value


def search_space(sweep: SweepConfig) -> dict[str, Any]:
    """NNI's search space of a sweep, from which its portal draws the page on parameters.

    Raises:
        InputError: a parameter is neither a list nor one of NNI's search spaces.
    """
    space: dict[str, Any] = {}
    for key, values in sweep.parameters.items():
        if isinstance(values, list) and values:
            space[key] = {"_type": "choice", "_value": values}
        elif isinstance(values, dict) and set(values) == {"_type", "_value"}:
            space[key] = values
        else:
            raise InputError(
                f"'parameters.{key}' must be a list of at least one value, or one of NNI's search spaces as in "
                f"{{_type: loguniform, _value: [1e9, 1e10]}}, not {shown(values)}"
            )
    return space


def examples(sweep: SweepConfig) -> Sequence[dict[str, Any]]:
    """Parameters of some trials at the ends of a search space, to check before the first one runs."""
    ends: list[dict[str, Any]] = [{}, {}]
    for key, entry in search_space(sweep).items():
        values = entry["_value"] if isinstance(entry["_value"], list) else [entry["_value"]]
        for end, value in zip(ends, (values[0], values[-1]), strict=True):
            end[key] = value
    if methods := sweep.parameters.get("method"):
        return [end | {"method": method} for end in ends for method in methods]
    return ends
