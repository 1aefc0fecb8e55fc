"""Where a result comes from: configuration, seed, versions."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from typing import Any

from quantnas_ext.runs.config import Config

PACKAGES = ("quantnas-ext", "torch", "nni", "accelerate", "basicsr")


def provenance(config: Config, **more: Any) -> dict[str, Any]:
    """What to write beside a result: the whole configuration, its seed, package versions, and ``more``."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source tree that is not installed
            versions[package] = "not installed"
    return {"seed": config.seed, "versions": versions, **more, "configuration": dataclasses.asdict(config)}
