"""Paths as users write them: with ``~`` for a home folder, and relative to the folder they are working in."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from quantnas_ext.errors import InputError


def expanded(path: str) -> str:
    """A path with a leading ``~`` or ``~user`` replaced by that home folder, as a shell does it.

    Raises:
        InputError: nobody knows that home folder, or the path is empty (which would mean the working directory).
    """
    if not path.strip():
        raise InputError("an empty path names nothing; write . for the working directory")
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise InputError(f"'{path}' begins with an unknown home folder; write './{path}' for something of that name")
    return found


def path_argument(text: str) -> str:
    """For ``argparse``, as ``type=``: a path with ``~`` replaced, even where the shell leaves it, ``--out=~/x``."""
    try:
        return expanded(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def named_folder_argument(text: str) -> str:
    """For ``argparse``: ``NAME=DIR`` with ``~`` replaced in the folder; what has another form is left as it is."""
    name, equals, folder = text.partition("=")
    return f"{name}={path_argument(folder)}" if name and folder else text


def is_file(path: Path) -> bool:
    """Whether there is a file; there is none of a name that no file can have, which Python refuses otherwise."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def seen_from(path: str | Path) -> str:
    """How the sentence about a missing path ends: where a relative path begins; nothing for an absolute one."""
    if os.path.isabs(path):
        return ""
    try:
        return f" (relative to the working directory '{os.getcwd()}')"
    except OSError:
        return " (relative to a working directory that is no longer there)"
