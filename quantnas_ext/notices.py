"""Lines that say what was done otherwise than a user may expect, without stopping a run for it."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm

from quantnas_ext.errors import printable

_said: set[str] = set()


def notice(text: str) -> None:
    """Print one line on standard error, above progress bars; the same line is printed once in a process.

    Of several processes (``torchrun``, ``accelerate launch``) the first one speaks for all.
    """
    if text not in _said and os.environ.get("RANK", "0") == "0":
        _said.add(text)
        tqdm.write(f"note: {printable(text)}", file=sys.stderr)
