"""The configuration of a run: defaults live here, YAML files hold only what differs from them.

``load_config`` reads a file, applies ``--set key=value`` overrides and checks everything; ``save_config`` writes the
whole configuration beside a result, and reading that file gives an equal configuration back.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from quantnas_ext.errors import InputError, about, unknown_name
from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.files.paths import expanded, is_file, seen_from
from quantnas_ext.files.schema import build, number, read_yaml, read_yaml_file
from quantnas_ext.quantization.precision import Precision
from quantnas_ext.runs.plugins import import_plugins
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.search.options import BatchOptions, LoopOptions, StrategyOptions


@dataclass(frozen=True)
class SpaceConfig:
    """Which model space is searched.

    Attributes:
        name: the space's name.
        arguments: what the space is built with, such as ``scale`` and ``width``; the space itself checks them.
    """

    name: str = "sr_basic"
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig(BatchOptions):
    """Images to search, train and evaluate on. A dataset folder holds ``HR/*.png`` and ``LRx{scale}/*.png``.

    Attributes:
        photographs: folder for the photographs that come with scikit-image and scikit-learn. Where it is given they are
            prepared there if need be, and stand for ``train`` and ``test``.
        train: dataset folders whose images are put together.
        test: dataset folders to evaluate on, by the name that they have in tables.
        patch: side of the low-resolution crops of a search, in pixels.
        validation_share: share of the training images on which the search trains the logits rather than the weights.
        hr_folder: folder of the high-resolution images in a folder of ``train``.
        lr_folder: folder of the low-resolution images; ``{scale}`` stands for the scale.
        lr_suffix: what names of low-resolution images have behind those of the high-resolution ones, as in
            ``x{scale}``.
        nested: whether images in subfolders belong to the folders of ``train`` and ``test``.
        skip_small: whether training images smaller than a patch are left out instead of refused.
    """

    photographs: str | None = field(default=None, metadata={"path": True})
    train: list[str] = field(default_factory=list, metadata={"path": True})
    test: dict[str, str] = field(default_factory=dict, metadata={"path": True, "decides": False})
    patch: int = number(32, least=4)
    validation_share: float = number(0.5, above=0, below=1)
    hr_folder: str = "HR"
    lr_folder: str = "LRx{scale}"
    lr_suffix: str = ""
    nested: bool = False
    skip_small: bool = False


@dataclass(frozen=True)
class CostConfig:
    """One cost of a search, with its goal.

    Attributes:
        cost: name of the cost: ``bitops``, ``bytes``, ``latency_ms``, or one that a plugin registers.
        budget: most that the found network may cost, which the search meets by itself in place of the penalty.
        penalty: weight of the expected cost, relative to that at the start.
        input: shape of the input for which it is counted, with its batch; None for one colour image of 32x32.
        arguments: what else the cost is made with.
    """

    cost: str = ""
    budget: float | None = number(None, above=0)
    penalty: float = 0.0
    input: list[int] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchConfig(StrategyOptions, LoopOptions):
    """The bilevel search of architecture and weights: options of its loop and its strategy, goals, and the rest.

    Attributes:
        entropy: as the strategy's, with a default of its own and never below 0.
        bitops_penalty: weight of the expected BitOps, relative to those at the start; negative favours costly networks.
        bitops_budget: most BitOps, at a 32x32 input, of the found network, which the search meets by itself in place of
            the penalty; None searches without a budget.
        bytes_penalty: weight of the expected bytes of the parameters, relative to those at the start.
        bytes_budget: most bytes of the found network's parameters, in place of the penalty; None for no budget.
        latency_table: file of ``recipes/measure_latency.py`` with times of this space on this machine; where one is
            given, the latency is followed and reported. None searches without one.
        latency_penalty: weight of the expected latency, relative to that at the start.
        latency_budget: most milliseconds, by the table, of the found network, in place of the penalty; None for no
            budget.
        costs: further costs, or those above in full: each with a penalty or a budget.
        operations: architecture file whose operations are kept, so that only precisions are searched; None searches
            both.
        top_k: how many of the most probable architectures are written.
        threads: CPU threads of a process; None chooses them by what is free and what they bring (``threads``).
    """

    entropy: float = number(1e-3, least=0)
    bitops_penalty: float = 1e-3
    bitops_budget: float | None = number(None, above=0)
    bytes_penalty: float = 0.0
    bytes_budget: float | None = number(None, above=0)
    latency_table: str | None = field(default=None, metadata={"path": True})
    latency_penalty: float = 0.0
    latency_budget: float | None = number(None, above=0)
    costs: list[CostConfig] = field(default_factory=list)
    operations: str | None = field(default=None, metadata={"path": True})
    top_k: int = number(1, least=1, most=1000, decides=False)
    threads: int | None = number(None, least=1, decides=False)


@dataclass(frozen=True)
class TrainConfig:
    """The final training of a found network.

    Attributes:
        iterations: iterations in all.
        full_precision_iterations: how many of them, at the start, run without quantization.
        from_supernet: start from the supernet's weights instead of new ones.
        precision: bits for every searched layer instead of the found ones, as in ``8`` or ``w4a8``; None keeps what was
            found, 32 trains in full precision.
        learning_rate: Adam's learning rate, with cosine decay.
        batch_size: crops in a batch.
        patch: side of the low-resolution crops, in pixels.
        validate_every: iterations between two validations.
        checkpoint_every: iterations between two checkpoints.
    """

    iterations: int = number(1000, least=1)
    full_precision_iterations: int = number(0, least=0)
    from_supernet: bool = False
    precision: int | str | None = None
    learning_rate: float = number(1e-4, above=0)
    batch_size: int = number(8, least=1)
    patch: int = number(32, least=4)
    validate_every: int = number(500, least=1)
    checkpoint_every: int = number(500, least=1)


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on.

    Attributes:
        seed: seed of every random number; NumPy takes 32 bits.
        run: folder that holds all results of the run.
        plugins: modules of yours to import first, by name or as paths of ``.py`` files: they register costs or spaces.
        space: the model space.
        data: the images.
        search: the search.
        train: the final training.
    """

    seed: int = number(0, least=0, most=2**32 - 1)
    run: str = field(default="runs/demo", metadata={"path": True, "decides": False})
    plugins: list[str] = field(default_factory=list, metadata={"path": True})
    space: SpaceConfig = field(default_factory=SpaceConfig)
    data: DataConfig = field(default_factory=DataConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def load_config(path_or_name: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read, override and check a configuration.

    Args:
        path_or_name: a YAML file, or the bare name of a shipped configuration such as ``demo``; None for the defaults.
        overrides: ``key=value`` texts with whole keys, such as ``search.epochs=3``, in the order of application; values
            are read as YAML and replace what stood there.

    Raises:
        InputError: a missing or unreadable file, text that is not YAML, an unknown key, a value of another type or out
            of its range, or values that do not go together. The sentence names the file or override, and the key.
    """
    values: dict[str, Any] = {}
    source = "the default configuration"
    if path_or_name is not None:
        path = _find(path_or_name)
        source = f"configuration '{path}'"
        with about(source):
            values = read_yaml_file(path, written=True)
        _build(values, source)
        values = values or {}
    for override in overrides:
        key, value = _parse_override(override)
        one: dict[str, Any] = {}
        _put(one, key, value)
        _build(one, f"'--set {override}'")
        _put(values, key, value)
    config = _build(values, f"{source} with --set {' '.join(overrides)}" if overrides else source, whole=True)
    if path_or_name is not None and not any(override.startswith("run=") for override in overrides):
        config = _at_its_place(config, path)
    import_plugins(config.plugins)
    return config


def _at_its_place(config: Config, path: Path) -> Config:
    """The configuration that a search saved in its run folder, which may have been moved with all that lies in it."""
    folder = path.parent
    run = RunFolder(folder)
    if path != run.config or not run.holds_search or os.path.realpath(config.run) == os.path.realpath(folder):
        return config

    def here(key: str, value: str) -> str:
        return str(folder / Path(value).relative_to(config.run)) if Path(value).is_relative_to(config.run) else value

    return _with_paths(config, here)


def save_config(config: Config, path: str | Path) -> None:
    """Write the whole configuration as YAML, checked, and complete or not at all, over an earlier file.

    Raises:
        InputError: a value that ``load_config`` would not take either.
    """
    path = Path(path)
    checked = _build(dataclasses.asdict(config), f"the configuration for '{path}'", whole=True)
    text = yaml.safe_dump(dataclasses.asdict(checked), sort_keys=False, allow_unicode=True)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def add_config_arguments(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Give a recipe the two arguments that go to ``load_config``: ``arguments.config`` and ``arguments.overrides``."""
    names = ", ".join(shipped_configs())
    instead = f" (default: {default})" if default else ""
    configuration = f"a YAML file, or one of: {names}{instead}"
    parser.add_argument("--config", metavar="NAME|FILE", default=default, help=configuration)
    override = "override one value, as in --set search.epochs=3; repeatable"
    parser.add_argument("--set", metavar="KEY=VALUE", dest="overrides", action="append", default=[], help=override)


def shipped_configs() -> dict[str, Path]:
    """The configurations that come with the package, by name; in a checkout they lie beside it."""
    package = Path(__file__).parents[1]
    for folder in (package / "recipes" / "configs", package.parent / "recipes" / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def _find(path_or_name: str | Path) -> Path:
    """The file that a path or a bare name means."""
    path = Path(expanded(str(path_or_name)))
    shipped = shipped_configs()
    if path.suffix == "" and path.name == str(path_or_name):
        if path.name not in shipped:
            raise unknown_name("configuration", path.name, shipped)
        return shipped[path.name]
    if not is_file(path):
        names = ", ".join(shipped)
        raise InputError(
            f"configuration '{path}' is not a file{seen_from(path)}; "
            f"name a YAML file, or one of those that ship: {names}"
        )
    return path


def _parse_override(override: str) -> tuple[str, Any]:
    """Key and value of a ``key=value`` text."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"'--set {override}' is not of the form KEY=VALUE, as in --set search.epochs=3")
    with about(f"'--set {override}'"):
        return key, read_yaml(text, written=True)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set one value by its whole key, in place; what is no mapping on the way becomes one."""
    *sections, name = key.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[name] = value


def _build(values: Any, source: str, *, whole: bool = False) -> Config:
    """The configuration from its values, with ``source``, where they come from, in front of any error.

    ``whole``: also check values that have to go together, which a single override need not meet.
    """
    with about(source):
        config = build(Config, values)
        if config.train.precision is not None:
            with about("'train.precision'"):
                Precision.parse(config.train.precision)
        warmup, epochs = config.search.warmup_epochs, config.search.epochs
        if whole and warmup >= epochs:
            raise InputError(f"'search.warmup_epochs' ({warmup}) must be smaller than 'search.epochs' ({epochs})")
        latency = {"budget": config.search.latency_budget, "penalty": config.search.latency_penalty}
        for goal, value in latency.items():
            if whole and value and config.search.latency_table is None:
                raise InputError(
                    f"'search.latency_{goal}' ({value:g}) needs times; give 'search.latency_table', a file that "
                    "recipes/measure_latency.py makes"
                )
        first, total = config.train.full_precision_iterations, config.train.iterations
        if whole and first >= total:
            raise InputError(
                f"'train.full_precision_iterations' ({first}) leaves none of 'train.iterations' ({total}) for "
                "quantization; take fewer, or 'train.precision' 32"
            )
        return _with_paths(config, _home)


def _home(key: str, path: str) -> str:
    """A path with ``~`` replaced by the home folder."""
    with about(f"'{key}'"):
        return expanded(path)


def _with_paths(section: Any, change: Callable[[str, str], str], prefix: str = "") -> Any:
    """The configuration, or a section of it, with every path, given with its key, changed."""
    changed: dict[str, Any] = {}
    for option in dataclasses.fields(section):
        key = f"{prefix}{option.name}"
        value: Any = getattr(section, option.name)
        if dataclasses.is_dataclass(value):
            changed[option.name] = _with_paths(value, change, f"{key}.")
        elif not option.metadata.get("path") or value is None:
            continue
        elif isinstance(value, list):
            changed[option.name] = [change(f"{key}[{i}]", path) for i, path in enumerate(value)]
        elif isinstance(value, dict):
            changed[option.name] = {name: change(f"{key}.{name}", path) for name, path in value.items()}
        else:
            changed[option.name] = change(key, value)
    return dataclasses.replace(section, **changed)
