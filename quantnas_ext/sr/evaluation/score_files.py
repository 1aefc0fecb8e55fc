"""Scores for people and programs: a table of means, and JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import WriteError, atomic_file, check_writable
from quantnas_ext.files.json_values import json_values
from quantnas_ext.files.paths import seen_from
from quantnas_ext.reporting.table import number_text

if TYPE_CHECKING:
    from quantnas_ext.sr.evaluation.metrics import FolderScores

_HEADINGS = {"psnr": ("PSNR dB", ".2f"), "ssim": ("SSIM", ".4f"), "lpips": ("LPIPS", ".4f")}


def scores_table(scores: Mapping[str, Mapping[str, FolderScores]]) -> str:
    """A text table of mean figures, a line for each data set and method.

    Args:
        scores: data set to method to its scores.
    """
    rows = [(data, method, found.mean) for data, methods in scores.items() for method, found in methods.items()]
    figures = [name for name in _HEADINGS if all(name in mean for *_, mean in rows)]
    lines = [["data", "method", *(_HEADINGS[name][0] for name in figures)]]
    for data, method, mean in rows:
        lines.append([data, method, *(number_text(mean[name], _HEADINGS[name][1]) for name in figures)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = ["<", "<", *">" * len(figures)]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True))
        for line in lines
    )


def check_new_file(path: str | Path) -> None:
    """Check, before long work, that a result can be written.

    Raises:
        InputError: the file exists already, its folder does not, or nothing can be written there.
    """
    path = Path(path)
    try:
        if path.exists():
            raise InputError(f"'{path}' already exists; name another file or delete this one first")
        if not path.parent.is_dir():
            folder = path.parent
            where = seen_from(folder)
            raise InputError(
                f"'{path}' cannot be written: folder '{folder}' does not exist{where}; make it or name another"
            )
        check_writable(path.parent)
    except (OSError, WriteError) as error:
        raise WriteError(path, error) from error


def write_json(result: Mapping[str, Any], path: str | Path) -> None:
    """Write plain data as JSON, infinite numbers as null; the file appears complete or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(json_values(result), indent=2, allow_nan=False) + "\n", encoding="utf-8")
