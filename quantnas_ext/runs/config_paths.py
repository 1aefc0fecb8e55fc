"""The paths in a configuration: begun at a home folder, or at a run folder that has been moved."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantnas_ext.errors import about
from quantnas_ext.files.paths import expanded
from quantnas_ext.runs.run_folder import RunFolder


def at_its_place(config: Any, path: Path) -> Any:
    """The configuration that a search saved in its run folder, which may have been moved with all that lies in it."""
    folder = path.parent
    run = RunFolder(folder)
    if path != run.config or not run.holds_search or os.path.realpath(config.run) == os.path.realpath(folder):
        return config

    def here(key: str, value: str) -> str:
        return str(folder / Path(value).relative_to(config.run)) if Path(value).is_relative_to(config.run) else value

    return with_paths(config, here)


def from_home(key: str, path: str) -> str:
    """A path with ``~`` replaced by the home folder."""
    with about(f"'{key}'"):
        return expanded(path)


def with_paths(section: Any, change: Callable[[str, str], str], prefix: str = "") -> Any:
    """The configuration, or a section of it, with every path, given with its key, changed."""
    changed: dict[str, Any] = {}
    for option in dataclasses.fields(section):
        key = f"{prefix}{option.name}"
        value: Any = getattr(section, option.name)
        if dataclasses.is_dataclass(value):
            changed[option.name] = with_paths(value, change, f"{key}.")
        elif not option.metadata.get("path") or value is None:
            continue
        elif isinstance(value, list):
            changed[option.name] = [change(f"{key}[{i}]", path) for i, path in enumerate(value)]
        elif isinstance(value, dict):
            changed[option.name] = {name: change(f"{key}.{name}", path) for name, path in value.items()}
        else:
            changed[option.name] = change(key, value)
    return dataclasses.replace(section, **changed)
