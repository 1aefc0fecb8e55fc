"""Scores for people and programs: a table of means, and JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import atomic_file, check_writable, writing
from quantnas_ext.files.json_values import json_values
from quantnas_ext.files.paths import seen_from
from quantnas_ext.reporting.table import LPIPS, PSNR, SSIM, format_table

if TYPE_CHECKING:
    from quantnas_ext.sr.evaluation.metrics import FolderScores


def scores_table(scores: Mapping[str, Mapping[str, FolderScores]]) -> str:
    """A text table of mean figures, a line for each data set and each method in it."""
    rows = [
        {"data": data, "method": method, **found.mean}
        for data, methods in scores.items()
        for method, found in methods.items()
    ]
    figures = [figure for figure in (PSNR, SSIM, LPIPS) if all(figure.key in row for row in rows)]
    return format_table(rows, ["data", "method", *figures])


def check_new_file(path: str | Path) -> None:
    """Check, before long work, that a result can be written.

    Raises:
        InputError: the file exists already, its folder does not, or nothing can be written there.
    """
    path = Path(path)
    with writing(path):
        if path.exists():
            raise InputError(f"'{path}' already exists; name another file or delete this one first")
        if not path.parent.is_dir():
            raise InputError(
                f"'{path}' cannot be written: folder '{path.parent}' does not exist{seen_from(path.parent)}; make it "
                "or name another"
            )
        check_writable(path.parent)


def write_json(result: Mapping[str, Any], path: str | Path) -> None:
    """Write plain data as JSON, infinite numbers as null; the file appears complete or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(json_values(result), indent=2, allow_nan=False) + "\n", encoding="utf-8")
