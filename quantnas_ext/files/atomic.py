"""Files and folders that appear whole or not at all, and how a disk that takes no more is told of.

Everything that the package writes goes through ``atomic_file`` or ``atomic_folder``: what is written gets a name of its
own beside the target, and the target's name when it is whole. Other processes that write the same never meet half of
it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantnas_ext.errors import InputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What a disk, a quota or a limit on sizes answers when it is used up."""

DISK_TROUBLE = _FULL | {errno.EROFS, errno.EIO}
"""Error numbers that come from a disk rather than from a fault of a program."""

_PROBE = 1 << 16  # bytes; a disk that has no room for them has none for any result

_SHOWN = 40  # characters of the target's name in a temporary one, which may not be longer than 255 bytes


class WriteError(InputError):
    """A file or folder could not be written; what was there before is untouched, and nothing half-written is left.

    Attributes:
        reason: what the operating system said.
    """

    def __init__(self, path: str | Path, error: BaseException) -> None:
        self.reason: BaseException = error.reason if isinstance(error, WriteError) else error
        full = isinstance(self.reason, OSError) and self.reason.errno in _FULL
        remedy = "make room there, or name another place" if full else "name a place that can be written to"
        super().__init__(f"'{path}' cannot be written ({self.said}); {remedy}")

    @property
    def said(self) -> str:
        """The operating system's own words."""
        return getattr(self.reason, "strerror", None) or str(self.reason)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn what the operating system answers while ``path`` is written into one sentence that names it.

    Raises:
        WriteError: in place of an ``OSError``.
    """
    try:
        yield
    except (OSError, WriteError) as error:
        raise WriteError(path, error) from error


@contextlib.contextmanager
def atomic_file(path: str | Path, *, parents: bool = False) -> Iterator[Path]:
    """Write a file: ``with atomic_file(path) as temporary: temporary.write_text(...)``.

    Args:
        path: the file; an earlier one of that name stays until the new one is whole, and is then replaced.
        parents: make the folders above it where they are missing.

    Yields:
        A name in the same folder that no other process uses; it is renamed at the end, or removed on any exception.

    Raises:
        WriteError: the disk is full, or nothing can be written there.
    """
    path = Path(path)
    temporary = _beside(path)
    with writing(path):
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, same: Callable[[Path, Path], bool] | None = None) -> Iterator[Path]:
    """Make a folder with all its content: ``with atomic_folder(path) as temporary: ...``.

    Args:
        path: the folder, which is not there yet; folders above it are made.
        same: called with the new folder and the one that another process has made meanwhile. Where it says that they
            hold the same, the other's is kept and ours removed.

    Yields:
        An empty folder beside it; it is renamed at the end. On any exception it is removed, with those above it that
        were made for it.

    Raises:
        WriteError: the disk is full, or nothing can be written there.
        InputError: another process has made the folder meanwhile, with something else in it.
    """
    path = Path(path)
    temporary = _beside(path)
    with writing(path):
        made = [parent for parent in path.parents if not parent.exists()]
        try:
            temporary.mkdir(parents=True)
            yield temporary
            _rename(temporary, path, same)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            for parent in made:
                with contextlib.suppress(OSError):
                    parent.rmdir()
            raise


def _rename(temporary: Path, path: Path, same: Callable[[Path, Path], bool] | None) -> None:
    try:
        temporary.rename(path)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        if same is None or not path.is_dir() or not same(temporary, path):
            raise InputError(
                f"'{path}' was made by another process meanwhile, and holds something else; name another folder"
            ) from error
        shutil.rmtree(temporary)


def save_tensors(content: Any, path: str | Path, *, parents: bool = False) -> None:
    """Write tensors and plain values, as ``torch.save``, whole or not at all (``atomic_file``).

    They are put together in memory first: where a disk fills up, torch's own writer raises errors that do not say so.

    Raises:
        WriteError: the disk is full, or nothing can be written there.
    """
    import torch  # here, as most that is written needs none of it

    memory = io.BytesIO()
    torch.save(content, memory)
    with atomic_file(path, parents=parents) as temporary:
        temporary.write_bytes(memory.getbuffer())


def check_writable(folder: str | Path) -> None:
    """Try, before long work, whether an existing folder takes a file. Only that tells of read-only and full disks.

    Raises:
        WriteError: it does not.
    """
    with writing(folder), tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(_PROBE))
        probe.flush()


def remove_leftovers(folder: str | Path) -> None:
    """Remove what a process that was killed while writing left in a folder, which nobody else may be writing to now."""
    for path in Path(folder).glob(".*.tmp"):
        if len(path.name.split(".")[-2]) == 12 and path.is_file():
            path.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A name in the same folder that is nobody else's."""
    name = path.name
    while len(name.encode()) > 4 * _SHOWN:
        name = name[:_SHOWN]
    return path.with_name(f".{name}.{secrets.token_hex(6)}.tmp")
