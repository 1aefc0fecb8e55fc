"""Decoding every image of a data set once before a run needs them, so that a damaged one shows at the start.

Small sets are decoded at once. Large ones are decoded by threads beside what else a start does (Pillow decodes without
Python's lock), with a progress bar; whoever is about to make a run folder, or to read the first image, waits for them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.images import read_picture
from quantnas_ext.threads import available_cores

AT_ONCE = 50_000_000
"""Pixels of a set that is decoded at once, in about two seconds."""

_Key = tuple[str, int, int]

_whole: set[_Key] = set()
"""Files that have been decoded, each by its path, size and time of change."""

_running: list[_Decoding] = []

_process = os.getpid()


def begin_decoding(paths: Sequence[Path], pixels: int, name: str) -> None:
    """Decode images that this process has not decoded yet: at once, or in the background where they have many pixels.

    Where several processes share a run the first on each machine does it for all. The progress bar shows the name.

    Raises:
        InputError: one of a small set cannot be decoded; it is named. For large sets ``finish_decoding`` raises it.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    pending = {key for running in _running for key in running.keys}
    todo = {key: path for path in paths if (key := _key(path)) not in _whole and key not in pending}
    if pixels <= AT_ONCE:
        for key, path in todo.items():
            read_picture(path)
            _whole.add(key)
    elif todo:
        _running.append(_Decoding(todo, name))


def finish_decoding() -> None:
    """Wait until all images whose decoding has begun are decoded.

    Raises:
        InputError: one cannot be decoded; it is named, and the others are left.
    """
    if not _running or os.getpid() != _process:  # a worker process has none of the threads
        return
    try:
        for running in _running:
            running.wait()
    finally:
        for running in _running:
            running.stop()
        _running.clear()


class _Decoding:
    """Threads that decode images, by their keys."""

    def __init__(self, todo: dict[_Key, Path], name: str) -> None:
        self.keys = frozenset(todo)
        self._lock = threading.Lock()
        self._bar = tqdm(total=len(todo), desc=f"decoding {name}", unit="image")
        # Its threads are daemons: a run that ends for another reason does not wait for them.
        self._pool = ThreadPool(max(1, min(8, available_cores()[0] // 2)))
        self._done = self._pool.imap_unordered(self._decode, todo.items())

    def wait(self) -> None:
        """Return when all are decoded; raise `InputError` when one cannot be."""
        for _ in self._done:
            pass

    def stop(self) -> None:
        """Let the threads end with the image that each is at, and take the progress bar away."""
        self._pool.terminate()
        self._pool.join()
        self._bar.close()

    def _decode(self, entry: tuple[_Key, Path]) -> None:
        key, path = entry
        read_picture(path)
        with self._lock:
            _whole.add(key)
            self._bar.update()


def _key(path: Path) -> _Key:
    """What tells whether a file is still the one that was decoded."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"image '{path}' cannot be read ({error.strerror}); replace or remove it") from error
    return os.path.abspath(path), status.st_size, status.st_mtime_ns
