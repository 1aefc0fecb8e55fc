"""Tables and the figure of ``search_quality.py``, written to ``docs/evidence.md`` and ``docs/images/evidence.png``."""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import bootstrap, kendalltau

BEGIN, END = "<!-- from benchmarks/search_quality.py -->", "<!-- end of benchmarks/search_quality.py -->"
MARKERS = "osD^vPX*hd"
MEAN = "random_mean"
Run = Mapping[str, Any]


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Bootstrap interval (95 %, percentiles) of a mean; None of fewer than two values."""
    if len(values) < 2:
        return None
    found = bootstrap((np.asarray(values),), np.mean, method="percentile", rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def shown(values: Sequence[float], *, sign: bool = False) -> str:
    """Mean with its interval, as text."""
    form = "{:+.2f}" if sign else "{:.2f}"
    limits = interval(values)
    between = "" if limits is None else f" ({form.format(limits[0])} to {form.format(limits[1])})"
    return form.format(statistics.fmean(values)) + between


def with_means(runs: Sequence[Run]) -> list[Run]:
    """The runs, and for random networks the mean of all of them as a method of its own."""
    means = [
        {**run, "method": MEAN, "psnr": run["mean_psnr"], "gbitops": run["mean_gbitops"]}
        for run in runs
        if run["method"] == "random"
    ]
    return [*runs, *means]


def differences(runs: Sequence[Run], method: str, other: str, test: str) -> list[float]:
    """PSNR of a method less that of another, seed by seed."""
    of = {(run["method"], run["seed"]): run["psnr"][test] for run in runs}
    seeds = sorted(seed for name, seed in of if name == method and (other, seed) in of)
    return [of[method, seed] - of[other, seed] for seed in seeds]


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are numbers but for the first two."""
    rule = ["---", "---", *["---:"] * (len(heading) - 2)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, rule, *rows)) + "\n"


def page(plan: Any, methods: Mapping[str, Any], reference: str) -> str:
    """The Markdown of all results."""
    titles = {name: method.title for name, method in methods.items()} | {MEAN: "random, mean of all"}
    sections = []
    for space in plan.settings.spaces:
        runs = with_means([run for run in plan.runs if run["space"] == space])
        tests = sorted({test for run in runs for test in run["psnr"]} - {"validation"})
        scores, against, inside, missing = [], [], [], []
        for budget in sorted({key[1] for key in plan.wanted if key[0] == space}, key=lambda value: value or 1e9):
            name = "none" if budget is None else f"{budget:g}"
            here = [run for run in runs if run["budget"] == budget]
            for method, title in titles.items():
                wanted = plan.wanted[space, budget, "random" if method == MEAN else method]
                of = [run for run in here if run["method"] == method]
                if len(of) < wanted and method != MEAN:
                    missing.append(f"{title} at {name} ({wanted - len(of)} of {wanted} seeds)")
                if not of:
                    continue
                psnr = [shown([run["psnr"][test] for run in of]) for test in tests]
                deviation = [f"{statistics.stdev(run['psnr'][tests[0]] for run in of):.2f}" if len(of) > 1 else "-"]
                cost = f"{statistics.fmean(run['gbitops'] for run in of):.3f}"
                networks = f"{statistics.fmean(run['networks'] for run in of):.1f}"
                scores.append([name, title, str(len(of)), *psnr, *deviation, cost, networks])
                inside += _inside(name, title, of, budget)
                less = differences(here, reference, method, tests[0])
                if less and method != reference:
                    against.append([name, title, str(len(less)), shown(less, sign=True)])
        if not runs:
            sections.append(f"## Space: {space}\n\nNo results yet.\n")
            continue
        heading = ["budget, G", "method", "seeds", *(f"{test}, dB" for test in tests), f"deviation, {tests[0]}"]
        text = [table([*heading, "GBitOps", "networks trained"], scores)]
        text.append(f"{titles[reference].capitalize()} less the others, {tests[0]}, dB, in pairs of one seed:\n")
        text.append(table(["budget, G", "less", "pairs", "difference"], against))
        text.append("What explains it (means over seeds; the gap is PSNR on validation crops):\n")
        columns = ["blocks decided (above 0.9), %", "supernet less derived, dB", "least expected cost / budget"]
        text.append(table(["budget, G", "method", *columns, "CPU seconds of a search"], inside))
        for row in plan.rankings:
            if row["space"] == space:
                text.append(_tau(row, titles, tests))
        if missing:
            text.append("Missing: " + "; ".join(missing) + ".\n")
        sections.append(f"## Space: {space}\n\n" + "\n".join(text))
    intro = (
        f"`python benchmarks/search_quality.py`: x4, {plan.settings.training['train.iterations']} iterations from "
        f"scratch, {plan.settings.search['search.epochs']} x {plan.settings.search['search.steps_per_epoch']} steps of "
        "search. Brackets: 95 % bootstrap intervals of the mean, which are too narrow for so few seeds. "
        "Points of the figure are seeds.\n\n![PSNR against BitOps, and expected cost over the search]"
        "(images/evidence.png)\n"
    )
    return "\n".join([intro, *sections])


def _inside(budget: str, title: str, runs: Sequence[Run], maximum: float | None) -> list[list[str]]:
    """The row of a search method that tells how its searches went."""
    searches = [run["search"] for run in runs if "search" in run]
    if not searches:
        return []

    def mean(key: str, form: str, factor: float = 1.0) -> str:
        values = [factor * search[key] for search in searches if key in search]
        return form.format(statistics.fmean(values)) if values else "-"

    least = [min(search["cost_over_budget"]) for search in searches if "cost_over_budget" in search]
    lowest = f"{statistics.fmean(least):.2f}" if least else "-"
    figures = [mean("decided", "{:.0f}", 100), mean("gap", "{:.2f}"), lowest, mean("cpu_seconds", "{:.0f}")]
    return [[budget, title, *figures]]


def _tau(row: Mapping[str, Any], titles: Mapping[str, str], tests: Sequence[str]) -> str:
    """A sentence on how a supernet ranks."""
    count = len(row["supernet"])
    taus = [
        f"{kendalltau(row['supernet'], [one[test] for one in row['trained']]).statistic:.2f} ({test})"
        for test in ("validation", *tests)
    ]
    return (
        f"Kendall's tau between the scores of {count} random architectures at {row['budget']:g} G in the supernet "
        f"({titles[row['method']]}) and alone: {', '.join(taus)}.\n"
    )


def figure(plan: Any, methods: Mapping[str, Any]) -> Figure:
    """PSNR against BitOps, and expected cost over budget at every epoch; a row for each space."""
    drawn = Figure(figsize=(11, 4 * len(plan.settings.spaces)), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots(len(plan.settings.spaces), 2, squeeze=False)
    for (scores, costs), space in zip(axes, plan.settings.spaces, strict=True):
        runs = [run for run in plan.runs if run["space"] == space]
        tests = sorted({test for run in runs for test in run["psnr"]} - {"validation"})
        for index, (name, method) in enumerate(methods.items()):
            of = [run for run in runs if run["method"] == name]
            style = {"color": f"C{index}", "alpha": 0.75, "label": method.title}
            if of:
                x, y = [run["gbitops"] for run in of], [run["psnr"][tests[0]] for run in of]
                scores.scatter(x, y, marker=MARKERS[index % len(MARKERS)], s=28, **style)
            for run in of:
                curve = run.get("search", {}).get("cost_over_budget")
                if curve:
                    epochs = np.linspace(0, 1, len(curve))
                    costs.plot(epochs, curve, linewidth=0.8, **style)
                    style.pop("label", None)
        scores.set(title=space, xlabel="GBitOps at 32x32", ylabel=f"{tests[0] if tests else ''} PSNR, dB")
        costs.set(title=space, xlabel="part of the search", ylabel="expected cost / budget", yscale="log")
        costs.axhline(1.0, color="black", linewidth=0.6)
        for panel in (scores, costs):
            if panel.get_legend_handles_labels()[0]:
                panel.legend(fontsize=7)
    return drawn


def write_page(plan: Any, methods: Mapping[str, Any], reference: str, docs: Path) -> str:
    """Write page and figure; of a page that is there only the part between the two marks is replaced."""
    path = docs / "evidence.md"
    before, after = "# What found networks are worth\n\n", ""
    if path.exists():
        text = path.read_text(encoding="utf-8")
        before, mark, rest = text.partition(BEGIN)
        after = rest.partition(END)[2] if mark else ""
    figure(plan, methods).savefig(docs / "images" / "evidence.png", dpi=130)
    text = f"{before}{BEGIN}\n\n{page(plan, methods, reference)}\n{END}{after or chr(10)}"
    path.write_text(text, encoding="utf-8")
    return str(path)
