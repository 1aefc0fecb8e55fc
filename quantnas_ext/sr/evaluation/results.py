"""Enlarged images: what is checked before any is made, and an enlargement that memory does not suffice for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import WriteError, check_writable, writing

TILE = 512
"""Side of a tile without its margin, low-resolution pixels, where nothing else is said."""

_SMALLEST_TILE = 24


def check_output_folder(folder: Path) -> None:
    """Check, before long work and without making it, that files can be written to a folder.

    Raises:
        InputError: it, or the folder in which it would be made, is a file or cannot be written to.
    """
    try:
        with writing(folder):
            nearest = next(place for place in (folder, *folder.parents) if place.exists())
            if not nearest.is_dir():
                raise InputError(f"folder '{folder}' cannot be made ('{nearest}' is a file); name another one")
            check_writable(nearest)
    except WriteError as error:
        raise InputError(f"folder '{folder}' cannot be written to ({error.said}); name another one") from error


def check_tile(tile: int) -> int:
    """The side of a tile itself.

    Raises:
        InputError: it is neither 0 (images are enlarged whole) nor at least 24.
    """
    if tile and tile < _SMALLEST_TILE:
        raise InputError(f"a tile of {tile} pixels is not possible; give at least {_SMALLEST_TILE}, or 0 for none")
    return tile


@contextlib.contextmanager
def within_memory(image: Path) -> Iterator[None]:
    """Say in a sentence that memory does not suffice to enlarge an image.

    Raises:
        InputError: in place of the errors of Python and torch that say so.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        import torch

        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise InputError(f"memory does not suffice to enlarge '{image}'; give a smaller --tile") from error
