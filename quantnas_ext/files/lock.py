"""One process at a time in a run folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import atomic_file, remove_leftovers, writing

_LOCK, _OWNER = ".lock", ".lock.owner"

LOCK_FILES = frozenset((_LOCK, _OWNER))
"""Names of the files in a run folder that belong to its lock. The first stays, because removing it would be a race."""

_held: dict[str, FileLock] = {}
"""Locks of this process, by the real paths of their folders."""


@contextlib.contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Keep other processes out of a run folder that exists: ``with run_lock(folder): ...``.

    The operating system holds the lock (flock) and gives it back when the process ends, however it ends. Within a
    process it may be taken again further in. On a file system without such locks (some network mounts) a warning says
    so and the run goes on without one. What an earlier owner was writing when it was killed is removed.

    Raises:
        InputError: another process holds it; the sentence says which.
        WriteError: nothing can be written there.
    """
    folder = Path(folder)
    place = os.path.realpath(folder)
    if place in _held:
        yield
        return
    lock = FileLock(folder / _LOCK)
    with writing(folder):
        taken = _take(lock)
        if not taken and _locks_work(folder):
            raise InputError(
                f"run folder '{folder}' is in use by {_owner(folder)}; wait until that ends, or use another folder"
            )
    if not taken:
        print(
            f"warning: the file system of '{folder}' has no locks; start no second run in that folder",
            file=sys.stderr,
        )
        yield
        return
    _held[place] = lock
    try:
        with writing(folder):
            remove_leftovers(folder)
            with atomic_file(folder / _OWNER) as temporary:
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                owner = f"process {os.getpid()} on {socket.gethostname()} (since {since})"
                temporary.write_text(owner, encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / _OWNER).unlink(missing_ok=True)
        del _held[place]
        lock.release()


def _take(lock: FileLock) -> bool:
    """Whether the lock could be taken at once."""
    try:
        lock.acquire(blocking=False)
    except (Timeout, NotImplementedError):
        return False
    return True


def _locks_work(folder: Path) -> bool:
    """Whether the folder's file system has locks at all: a refusal alone does not tell."""
    lock = FileLock(folder / f".{secrets.token_hex(6)}.tmp")
    try:
        return _take(lock)
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _owner(folder: Path) -> str:
    """Who holds the lock, as they wrote it down."""
    try:
        return (folder / _OWNER).read_text(encoding="utf-8") or "another process"
    except OSError:  # it has only just begun, or is about to end
        return "another process"
