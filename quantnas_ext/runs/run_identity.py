"""Whether a run folder holds the run that a configuration asks for, and how a search begins or goes on there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantnas_ext.errors import InputError, shown
from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.runs.command_line import is_main_process
from quantnas_ext.runs.config import Config, load_config, save_config
from quantnas_ext.runs.run_folder import Folder, RunFolder, TrainingFolder

_HARMLESS_TO_A_TRAINING = (
    *("run", "space.", "data.patch", "data.batch_size", "data.validation_share", "data.test", "data.workers"),
    *("search.", "train.validate_every", "train.checkpoint_every"),
)
"""What a training does not depend on; its architecture is a file of its own."""


def check_same_run(folder: RunFolder | TrainingFolder, given: Config) -> None:
    """Check that the run in a folder is the one of a configuration; print what differs without harm.

    Args:
        folder: of a search or a training; without a configuration in it, as before a run began, everything goes.
        given: what is asked for.

    Raises:
        InputError: something differs that changes the result, all of which is listed with both values.
    """
    if not folder.config.is_file():
        return
    training = isinstance(folder, TrainingFolder)
    stage, harmless = ("training", _HARMLESS_TO_A_TRAINING) if training else ("search", ("train.", *_undecided(Config)))
    # The images' paths are compared as folders, and photographs with themselves, wherever they were prepared.
    there = load_config(folder.config)
    whole = there.space != given.space  # the defaults of a space's arguments, for which torch has to be loaded
    saved, wanted = (_flat(_values(config, defaults=whole)) for config in (there, given))
    beginnings = tuple(f"{key.rstrip('.')}." for key in harmless)  # so that "run" stands for no longer name
    different = [key for key in wanted.keys() | saved.keys() if saved.get(key) != wanted.get(key)]
    moved = [key for key in different if _same_place(key, saved.get(key), wanted.get(key), folder)]
    without_harm = [key for key in different if key in moved or f"{key}.".startswith(beginnings)]
    telling = sorted(set(different) - set(without_harm))
    if telling:
        both = "; ".join(
            f"'{key}' is {shown(saved.get(key))} there and {shown(wanted.get(key))} here" for key in telling
        )
        raise InputError(
            f"run folder '{folder}' holds a {stage} with another configuration: {both}; go on with its own, or use "
            "another folder"
        )
    names = sorted(set(without_harm) - {"run"})
    if names:
        print(f"going on with the {stage} in '{folder}', which does not depend on what differs: {', '.join(names)}")


@contextlib.contextmanager
def begun_search(config: Config, *, resume: bool) -> Iterator[RunFolder]:
    """The run folder of a search, with the search's configuration and the operations it keeps.

    The main process holds it; the others of a launcher get it as it is.

    Raises:
        InputError: the folder cannot be used (``RunFolder.held``), or is to go on with another search.
    """
    run, kept = RunFolder(config.run), config.search.operations
    if not is_main_process():
        yield run
        return
    if resume and run.configured:
        check_same_run(run, config)
    with run.held(resume=resume):
        save_config(config, run.config)
        if kept is not None and not run.operations.exists():
            with atomic_file(run.operations) as temporary:
                shutil.copyfile(kept, temporary)
        run.plots.mkdir(exist_ok=True)
        yield run


def _undecided(section: type[Any], prefix: str = "") -> Iterator[str]:
    """Keys of a configuration that no result depends on: where it lies, how it is computed, how much is written."""
    hints = typing.get_type_hints(section)
    for option in dataclasses.fields(section):
        if not option.metadata.get("decides", True):
            yield f"{prefix}{option.name}"
        elif dataclasses.is_dataclass(hints[option.name]):
            yield from _undecided(hints[option.name], f"{prefix}{option.name}.")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration by whole keys; the arguments of a space one by one, so that a difference is named shortly."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and (not prefix or key == "space.arguments"):
            found |= _flat(value, f"{key}.")
        else:
            found[key] = value
    return found


def _values(config: Config, *, defaults: bool) -> dict[str, Any]:
    """The values of a configuration, with the defaults of its space's arguments if asked for."""
    values = dataclasses.asdict(_without_prepared(config))
    if not defaults:
        return values
    from quantnas_ext.spaces.registry import SPACES, default_arguments  # here, because it loads torch

    if config.space.name in SPACES:
        own = default_arguments(config.space.name).items()
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in own}
        values["space"]["arguments"] = plain | config.space.arguments
    return values


def _without_prepared(config: Config) -> Config:
    """The configuration without the training images that stand for its photographs, as a training saves them."""
    data = config.data
    if data.photographs is None:
        return config
    prepared = {os.path.join(data.photographs, f"trainx{scale}") for scale in (2, 3, 4)}
    train = [folder for folder in data.train if os.path.normpath(folder) not in map(os.path.normpath, prepared)]
    return dataclasses.replace(config, data=dataclasses.replace(data, train=train))


def _same_place(key: str, saved: Any, given: Any, folder: Folder) -> bool:
    """Whether two paths lead to the same thing, or to equal ones; what moved away cannot be told from what is here.

    The checkpoint of a search remembers its data and costs by itself, and refuses others.
    """
    if not saved or not given:
        return False
    if key == "data.photographs":  # the same photographs of scikit-image wherever they are prepared
        return True
    if key == "data.train":
        return len(saved) == len(given) and all(_same_folder(a, b) for a, b in zip(saved, given, strict=True))
    if key == "search.operations":
        kept = [file for file in (RunFolder(folder.path).operations, Path(saved)) if file.is_file()]
        return bool(kept) and _same_content(kept[0], Path(given))
    if key == "search.latency_table":
        return not Path(saved).is_file() or _same_content(Path(saved), Path(given))
    return False


def _same_content(first: Path, second: Path) -> bool:
    """Whether the second file exists and equals the first."""
    return second.is_file() and first.read_bytes() == second.read_bytes()


def _same_folder(saved: str, given: str) -> bool:
    """Whether two folders are the same, hold the same files by name and size, or the first is no longer there."""
    if os.path.realpath(saved) == os.path.realpath(given) or not os.path.isdir(saved):
        return True
    return _listing(saved) == _listing(given)


def _listing(folder: str) -> dict[str, int]:
    """Size of every file below a folder, by its name from there."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()}
