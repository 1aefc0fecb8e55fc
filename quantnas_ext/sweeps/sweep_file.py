"""The file of a sweep: which runs, as what kind of NNI experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from quantnas_ext.arguments import name_among
from quantnas_ext.errors import InputError, about
from quantnas_ext.files.atomic import write_text
from quantnas_ext.files.paths import expanded, is_file, seen_from
from quantnas_ext.files.schema import build, number, read_yaml_file
from quantnas_ext.runs.config import parse_override, shipped_configs

GRID = "Grid"
"""The tuner that goes through all combinations, ours."""

MOST_TRIALS = 1000

STRATEGIES = ("RegularizedEvolution", "Random", "TPE")
"""NNI's multi-trial strategies."""


@dataclass(frozen=True)
class TunerConfig:
    """Who chooses the next trial.

    Attributes:
        name: ``Grid`` for all combinations of the parameters' values, or one of NNI's tuners, such as ``TPE``.
        arguments: NNI's ``classArgs`` of the tuner.
    """

    name: str = GRID
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepConfig:
    """A sweep.

    Attributes:
        run: folder of the sweep, with all that it leaves.
        config: configuration of every trial, a file or one that ships.
        set: what differs from that in all trials, as ``KEY=VALUE``.
        parameters: what differs between trials: ``method``, ``seed`` or any other key of a configuration, with the list
            of its values; for NNI's tuners also with one of NNI's search spaces, ``{_type: uniform, _value: [1, 2]}``.
        tuner: who chooses among them.
        architectures: NNI's multi-trial strategy (one of ``STRATEGIES``) in place of tuner and parameters: every trial
            trains one architecture of the space, within ``search.bitops_budget`` where the configuration has one. It
            takes the tuner's ``arguments``.
        trials: most trials; None for all of a grid.
        concurrency: trials at a time; None for as many as there are cores, or threads for.
        threads: CPU threads of a trial; None for an even share of the cores.
        port: of the web portal.
        training_service: NNI's own section of that name.
    """

    run: str = "runs/sweep"
    config: str = "demo"
    set: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    tuner: TunerConfig = field(default_factory=TunerConfig)
    architectures: str | None = None
    trials: int | None = number(None, least=1, most=MOST_TRIALS)
    concurrency: int | None = number(None, least=1, most=MOST_TRIALS)
    threads: int | None = number(None, least=1)
    port: int = number(8080, least=1024, most=65534)
    training_service: dict[str, Any] = field(default_factory=lambda: {"platform": "local"})

    @property
    def grid(self) -> bool:
        """Whether all trials are known before the first."""
        return self.architectures is None and self.tuner.name.lower() in (GRID.lower(), "gridsearch")


def shipped_sweeps() -> dict[str, Path]:
    """The sweeps that come with the package, by name."""
    folders = {path.parent / "sweeps" for path in shipped_configs().values()}
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def load_sweep(path_or_name: str, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read and check a sweep's file.

    Args:
        path_or_name: a YAML file, or the name of a sweep that ships.
        overrides: ``KEY=VALUE`` texts with keys of the first level; values are YAML and replace what stood there.

    Raises:
        InputError: a missing or damaged file, an unknown key, or a value that is not possible.
    """
    path = Path(expanded(path_or_name))
    if path.suffix == "" and path.name == path_or_name and not is_file(path):
        shipped = shipped_sweeps()
        path = shipped[name_among("sweep", path.name, shipped)]
    if not is_file(path):
        raise InputError(
            f"sweep '{path}' is not a file{seen_from(path)}; name a YAML file, or one of those that ship: "
            f"{', '.join(shipped_sweeps())}"
        )
    with about(f"sweep '{path}'"):
        values = read_yaml_file(path, written=True)
        build(SweepConfig, values)
        values = values or {}
    for override in overrides:
        key, value = parse_override(override)
        if "." in key:
            raise InputError(f"'--set {override}' is not possible; give a whole key of the sweep, such as run=DIR")
        with about(f"'--set {override}'"):
            build(SweepConfig, {key: value})
        values[key] = value
    with about(f"sweep '{path}'"):
        return _checked(build(SweepConfig, values))


def save_sweep(sweep: SweepConfig, path: Path) -> None:
    """Write a sweep's file, from which ``load_sweep`` reads an equal one."""
    text = yaml.safe_dump(dataclasses.asdict(sweep), sort_keys=False, allow_unicode=True)
    write_text(path, text)


def _checked(sweep: SweepConfig) -> SweepConfig:
    """The sweep, whose keys go together."""
    if sweep.architectures is not None:
        name_among("value of 'architectures':", sweep.architectures, STRATEGIES)
        if sweep.parameters:
            raise InputError("'architectures' takes the place of 'parameters'; leave one of them out")
        if sweep.trials is None:
            raise InputError("'architectures' goes on for ever; give 'trials', the most architectures to train")
    elif not sweep.parameters:
        raise InputError("'parameters' is empty: no trial to run; give at least one list, as in seed: [0]")
    if not sweep.grid and sweep.trials is None:
        raise InputError(f"tuner {sweep.tuner.name} goes on for ever; give 'trials', the most of them")
    return dataclasses.replace(sweep, run=expanded(sweep.run))
