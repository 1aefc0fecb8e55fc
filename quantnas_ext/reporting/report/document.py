"""The report as one HTML file: page, style, script, charts' library, data and pictures in it."""

from __future__ import annotations

import base64
import functools
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from typing import Any

import jinja2
import vl_convert
from PIL import Image

from quantnas_ext.reporting.report.contents import data_uri
from quantnas_ext.reporting.table import MISSING, number_text, si_prefix

_GLOBAL = "window.vegaEmbed = vegaEmbed;"
_CROPS = ("lr", "bicubic", "ours", "hr")


def report_page(content: Mapping[str, Any], drawings: Sequence[bytes], still: bytes, still_text: str) -> str:
    """The page.

    Vega-Lite draws the charts: as SVG, so that points can be reached by a keyboard and are read out, and its bundle of
    0.9 MB (0.4 packed) is in its package, where plotly's has only the full one of 4.5 MB and bokeh draws on a canvas.
    A policy in the page forbids it to load anything. Everything that comes from files is escaped or set as text.

    Args:
        content: of ``report_contents``.
        drawings: of ``report_contents``.
        still: a picture (.png) of the front, for readers without scripts.
        still_text: what it shows, in words.
    """
    images = [data_uri(_webp(picture), "webp") for picture in drawings]
    places = {address: index for index, address in enumerate(images)}
    trials = []
    for trial in content["trials"]:
        crops = []
        for crop in trial["crops"]:
            shown = dict(crop)
            for kind in _CROPS:
                address = data_uri(crop[kind], "webp")
                shown[kind] = places.setdefault(address, len(images))
                if shown[kind] == len(images):
                    images.append(address)
            crops.append(shown)
        trials.append({**trial, "crops": crops})
    best = _best(content)
    data = {"content": {**content, "trials": trials, "start": best["name"]}, "images": images}
    columns, rows = _table(content)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_file("page.html")).render(
        content={**content, "spaces": [_with_texts(space) for space in content["spaces"]]},
        summary=_summary(content, best),
        still=data_uri(still, "png"),
        still_text=still_text,
        columns=columns,
        rows=rows,
        failures=[trial for trial in trials if trial["status"] == "failed"],
        version=_version(),
        style=_file("page.css"),
        script=_file("charts.js") + _file("page.js"),
        packed_data=_packed(json.dumps(data, allow_nan=False)),
        packed_charts=_charts(),
    )


def _webp(picture: bytes) -> bytes:
    """The same pixels in about half the bytes."""
    written = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(written, "WEBP", lossless=True, quality=100, method=6)
    return written.getvalue()


@functools.cache
def _charts() -> str:
    """The library that draws charts, in a scope of its own; bundling it takes two seconds."""
    return _packed(f"(()=>{{{vl_convert.javascript_bundle(_GLOBAL)}}})();")


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode("ascii")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _version() -> str:
    try:
        return metadata.version("quantnas-ext")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return ""


def _best(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The run that is shown first: of those done the one of the highest PSNR on the first data set."""
    done = [trial for trial in content["trials"] if trial["status"] == "done"]
    data = content["datasets"][0] if content["datasets"] else ""
    return max(done, key=lambda trial: trial["scores"].get(data, {}).get("ours", {}).get("psnr") or float("-inf"))


def _summary(content: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """What the report is about, in a sentence or two."""
    trials = content["trials"]
    counts = {status: sum(trial["status"] == status for trial in trials) for status in ("running", "waiting", "failed")}
    others = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    done = len(trials) - sum(counts.values())
    runs = f"{done} finished run{'s' if done != 1 else ''}" + (f" ({others})" if others else "")
    spaces = list(dict.fromkeys(space["name"] for space in content["spaces"]))
    text = f"{runs} in {'spaces' if len(spaces) > 1 else 'space'} {', '.join(spaces)}."
    for data in content["datasets"][:1]:
        scores = best["scores"].get(data, {})
        if (psnr := scores.get("ours", {}).get("psnr")) is not None:
            text += f" The best on {data}: {number_text(psnr, '.2f')} dB"
            if (bicubic := scores.get("bicubic", {}).get("psnr")) is not None:
                text += f" against {number_text(bicubic, '.2f')} dB of bicubic interpolation"
            if bitops := best["costs"].get("bitops_32"):
                text += f", at {si_prefix()(bitops)}BitOps"
            text += f" ({best['name']})."
    return text


def _table(content: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Columns and rows of the table of all runs."""

    def column(heading: str, find: Any, show: Any = str, *, number: bool = True) -> dict[str, Any]:
        return {"heading": heading, "find": find, "show": show, "number": number}

    def score(data: str, figure: str) -> Any:
        return lambda trial: trial["scores"].get(data, {}).get("ours", {}).get(figure)

    columns = [column(name, lambda trial, n=name: trial[n], number=False) for name in ("name", "method", "status")]
    columns.append(column("seed", lambda trial: trial["seed"]))
    for data in content["datasets"]:
        where = f" on {data}" if len(content["datasets"]) > 1 else ""
        columns.append(column(f"PSNR, dB{where}", score(data, "psnr"), lambda value: number_text(value, ".2f")))
        columns.append(column(f"SSIM{where}", score(data, "ssim"), lambda value: number_text(value, ".4f")))
    columns.append(column("budget", lambda trial: trial["budget"], si_prefix()))
    for cost in content["costs"]:
        unit = "B" if cost["key"].startswith("bytes") else ""
        columns.append(column(cost["name"], lambda trial, k=cost["key"]: trial["costs"].get(k), si_prefix(unit)))
    columns.append(column("least decided", lambda trial: trial.get("least_decided"), lambda v: number_text(v, ".2f")))
    rows = []
    for trial in content["trials"]:
        values = [(each, each["find"](trial)) for each in columns]
        cells = [
            {
                "text": MISSING if value is None else each["show"](value),
                "value": "" if value is None else value,
                "number": each["number"],
            }
            for each, value in values
        ]
        rows.append({"name": trial["name"], "cells": cells})
    kept = [
        index
        for index, each in enumerate(columns)
        if not each["number"] or any(r["cells"][index]["value"] != "" for r in rows)
    ]
    for row in rows:
        row["cells"] = [row["cells"][index] for index in kept]
    return [columns[index] for index in kept], rows


def _with_texts(space: Mapping[str, Any]) -> dict[str, Any]:
    """A space with its numbers as they are written."""
    texts = {f"{name}_text": si_prefix()(space[name]) for name in ("least", "uniform", "largest") if name in space}
    budgets = [{**budget, "text": si_prefix()(budget["budget"])} for budget in space["budgets"]]
    return {"unknown": "", **space, **texts, "budgets": budgets}
