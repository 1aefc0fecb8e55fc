"""Modules of a user that register costs, spaces and the like before a run begins."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

from quantnas_ext.errors import InputError, shown

_PREFIX = "quantnas_plugin_"


def import_plugins(names: Sequence[str]) -> None:
    """Import modules, or ``.py`` files, that a configuration names; each once in a process.

    Raises:
        InputError: when one is not there, or fails while it is imported.
    """
    for name in names:
        try:
            if name.endswith(".py"):
                _import_file(os.path.realpath(name))
            else:
                importlib.import_module(name)
        except Exception as error:  # a user's code may raise anything
            raise InputError(
                f"plugin {shown(name)} cannot be imported ({type(error).__name__}: {error}); name a module that Python "
                "finds, or a .py file"
            ) from error


def _import_file(path: str) -> None:
    module_name = _PREFIX + path
    if module_name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None  # as its name ends in .py
    sys.modules[module_name] = module = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
