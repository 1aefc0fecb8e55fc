"""What lies beside the page of a report: the table, the still picture of the front, and names for files."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from quantnas_ext.reporting.report.contents import points_of, small_png
from quantnas_ext.reporting.report.front import PAPER, front_figure, undominated
from quantnas_ext.reporting.table import si_prefix


def table_csv(content: Mapping[str, Any]) -> str:
    """One line a run: what it is, its figures on every data set, its costs and how decided its search was."""
    methods = ("ours", "bicubic", "full_precision")
    scores = list(
        dict.fromkeys(
            (data, method, figure)
            for entry in content["trials"]
            for data, found in entry["scores"].items()
            for method in methods
            for figure in found.get(method, {})
            if figure in ("psnr", "ssim", "lpips")
        )
    )
    costs = [cost["key"] for cost in content["costs"]]
    told = ("entropy", "least_decided", "search_seconds")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "method", "seed", "status", "budget", *(" ".join(one) for one in scores), *costs, *told])
    for entry in content["trials"]:
        row = [entry[key] for key in ("name", "method", "seed", "status", "budget")]
        row += [entry["scores"].get(data, {}).get(method, {}).get(figure) for data, method, figure in scores]
        row += [entry["costs"].get(cost) for cost in costs] + [entry.get(key) for key in told]
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def still_front(content: Mapping[str, Any]) -> tuple[Figure | None, bytes, str]:
    """The front on the first data set against the first cost: the figure, a small picture of it (.png), and its text.

    Without an evaluated run there is no figure.
    """
    if not content["datasets"] or not content["costs"]:
        return None, b"", ""
    data, cost = content["datasets"][0], content["costs"][0]
    points = points_of(content["trials"], data, cost["key"])
    if not points:
        return None, b"", ""
    known = [entry["scores"].get(data, {}).get("bicubic", {}).get("psnr") for entry in content["trials"]]
    bicubic = next((psnr for psnr in known if psnr is not None), None)
    paper = content["paper"]
    figure = front_figure(
        points,
        {name: (style["colour"], style["shape"]) for name, style in content["styles"].items()},
        cost=cost["name"],
        dataset=data,
        bicubic=bicubic,
        published=PAPER if (paper.get("dataset"), paper.get("cost")) == (data, cost["key"]) else (),
    )
    front = {point.name: point for point in undominated(points)}
    best = "; ".join(f"{name} with {point.psnr:.2f} dB at {si_prefix()(point.cost)}" for name, point in front.items())
    text = f"{len(points)} runs by {cost['name']} and PSNR on {data}. On the front: {best}."
    return figure, small_png(figure), text


def file_names(content: Mapping[str, Any]) -> list[str]:
    """A name for files and folders of every trial, different in each whatever the disk."""
    names: list[str] = []
    for trial in content["trials"]:
        base = re.sub(r"[^\w.-]+", "_", trial["name"])[:100].strip(".") or "run"
        numbered = (f"{base}_{number}" for number in itertools.count(2))
        taken = {name.lower() for name in names}
        names.append(next(name for name in itertools.chain([base], numbered) if name.lower() not in taken))
    return names
