"""Files of a super-resolution search: the architecture whose operations it keeps, and the results in its run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.architecture import Architecture, filed_costs
from quantnas_ext.costs.counted import CostCounter, CountedCost
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.distribution.fixed_choices import fix_operations
from quantnas_ext.errors import about
from quantnas_ext.reporting.candidates import chosen_candidates
from quantnas_ext.reporting.distributions import distributions_figure
from quantnas_ext.reporting.drawing import architecture_figure
from quantnas_ext.reporting.figures import save_figure
from quantnas_ext.reporting.progress import search_figure
from quantnas_ext.reporting.table import Column, costs_text, decimals, format_table
from quantnas_ext.runs.config import Config
from quantnas_ext.runs.history import SearchHistory
from quantnas_ext.runs.provenance import provenance
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.runs.search_goals import goals_of
from quantnas_ext.search.result import SearchResult
from quantnas_ext.spaces import build_space
from quantnas_ext.spaces.diagram import Stage
from quantnas_ext.sr.evaluation.score_files import write_json
from quantnas_ext.sr.weights.weight_files import save_weights
from quantnas_ext.sr.weights.weight_identity import WeightIdentity


def keep_operations(space: ModelSpace, path: str | None) -> dict[str, Any]:
    """The operations of an architecture file, which ``space`` then no longer has to choose; none without a file.

    Raises:
        InputError: the file is none, or of another space.
    """
    if path is None:
        return {}
    architecture = Architecture.load(path)
    with about(f"'search.operations' ({path}) does not fit this space"):
        return fix_operations(space, architecture.choices)


def save_search(
    result: SearchResult,
    config: Config,
    run: RunFolder,
    diagram: Sequence[Stage] | None,
    tree: ChoiceTree,
    history: SearchHistory,
) -> Architecture:
    """Write what a search has found into its run folder: scores, architectures, weights and, last, plots.

    Returns:
        The found architecture, with the configuration in its provenance; ``diagram``, None for none, and ``tree`` are
        those of its space.
    """
    measured = {"measuring_seconds": round(result.measuring_seconds, 1)} if result.measured else {}
    source = provenance(config, search_seconds=round(result.seconds, 1), **measured)
    wanted = [*filed_costs(config.space.name), *(goal.cost for goal in goals_of(config.search))]
    costs = {CountedCost.of(cost, 0.0).key: cost for cost in wanted}
    counter = CostCounter(build_space(config.space.name, config.space.arguments), list(costs.values()))
    architecture = Architecture(
        config.space.name, config.space.arguments, result.choices, counter.of(result.choices), source
    )
    listed = []
    for rank, (log_probability, choices) in enumerate(result.top, start=1):
        ranked = replace(architecture, choices=choices, costs=counter.of(choices))
        if rank > 1:
            ranked.save(run.ranked(rank))
        listed.append({"file": run.ranked(rank).name, "log_probability": log_probability, **ranked.cost})
    scores = {"epoch": result.epoch, "scores": result.scores, "architectures": listed, **measured}
    if result.measured:
        scores["measured"] = [
            {cost.key: cost.value for cost in counter.of(one.choices)} | asdict(one) for one in result.measured
        ]
    write_json(scores, run.derived)
    identity = WeightIdentity.of(architecture, result.weights)
    save_weights(result.network.state_dict(), run.weights, identity)
    architecture.save(run.architecture)
    save_figure(distributions_figure(history.to_dict()), run.plots / "distributions.png")
    save_figure(search_figure(history.to_dict()), run.plots / "search.png")
    if diagram is not None:
        chosen = chosen_candidates(tree, result.choices)
        drawing = architecture_figure(diagram, chosen, title=config.space.name, costs=architecture.costs)
        save_figure(drawing, run.plots / "architecture.png")
    return architecture


def search_summary(result: SearchResult, architecture: Architecture, run: RunFolder) -> str:
    """What a search has found, in some lines and a table."""
    confident = sum(probability > 0.5 for probability in result.confidences.values())
    found = (
        f"found in {result.seconds:.0f} s: {costs_text(architecture.costs)}; joint probability above 0.5 in "
        f"{confident} of {len(result.confidences)} blocks"
    )
    if result.measured:
        plain = sum(candidate.plain for candidate in result.measured)
        found += f"\nbest of {len(result.measured)} measured in {result.measuring_seconds:.0f} s, {plain} of them plain"
    derived = f"derived from epoch {result.epoch}; on validation crops, before any training of its own:"
    figures = [Column("loss", "L1", decimals(4)), Column("psnr", "PSNR in RGB, dB", decimals(2))]
    rows = [{"network": name.replace("_", " "), **row} for name, row in result.scores.items()]
    table = format_table(rows, [Column("network", "network"), *figures])
    return "\n".join([found, *result.spent, str(run.architecture), derived, table])
