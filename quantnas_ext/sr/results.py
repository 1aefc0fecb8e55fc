"""Enlarged images on disk: the folder for them, and what can go wrong on the way, in a sentence each."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from quantnas_ext.errors import InputError

__all__ = ["LARGEST_IMAGE", "check_output_folder", "large_images", "make_folder", "writing"]

LARGEST_IMAGE = 2_000_000_000
"""Pixels of an image that is still read: large scans have some hundred million."""


def check_output_folder(folder: Path) -> None:
    """Check, before long work and without making it, that files can be written to a folder.

    Raises:
        InputError: It, or the folder in which it would be made, is a file or cannot be written to.
    """
    nearest = folder
    try:
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise InputError(f"folder '{folder}' cannot be made ('{nearest}' is a file); name another one")
        # Only trying tells: permissions say nothing of read-only file systems.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"folder '{folder}' cannot be written to ({reason}); name another one") from error


def make_folder(folder: Path) -> None:
    """Make a folder with those above it.

    Raises:
        InputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder '{folder}' cannot be made ({error.strerror}); name another one") from error


@contextlib.contextmanager
def large_images() -> Iterator[None]:
    """Let Pillow read images of up to `LARGEST_IMAGE` pixels, which the user has named, meanwhile.

    Its own limit, a twentieth of that, guards servers against small files of strangers that fill the memory.
    """
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = LARGEST_IMAGE // 2  # it warns above its limit and refuses above twice that
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def writing(result: Path, image: Path) -> Iterator[None]:
    """Say in a sentence why an image could not be enlarged and written.

    Raises:
        InputError: The disk is full or the file cannot be written, or memory does not suffice.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"'{result}' cannot be written ({error.strerror or error}); make room or name another folder, "
            "then go on with --skip-existing"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise InputError(f"memory does not suffice to enlarge '{image}'; give a smaller --tile") from error
