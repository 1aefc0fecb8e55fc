"""What a report says, as plain data: for the page, and for programs as JSON and CSV."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import yaml
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from nni.nas.nn.pytorch import ModelSpace
from PIL import Image

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.cost import BitOps
from quantnas_ext.deriving.cost_range import CostRange, cost_ranges
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.files.json_values import json_values
from quantnas_ext.reporting.candidates import Candidate, chosen_candidates
from quantnas_ext.reporting.distributions import stacking_order
from quantnas_ext.reporting.drawing import architecture_figure
from quantnas_ext.reporting.figures import operation_colours, precisions_name
from quantnas_ext.reporting.probabilities import BlockProbabilities, block_probabilities, epoch_numbers, most_entropy
from quantnas_ext.reporting.report.front import PAPER, Point, hull, method_styles, undominated
from quantnas_ext.reporting.report.layer_costs import layer_costs
from quantnas_ext.reporting.report.trials import Trial
from quantnas_ext.reporting.table import cost_column
from quantnas_ext.spaces import build_space
from quantnas_ext.spaces.contract import diagram_of

COST_INPUT = (1, 3, 32, 32)
"""For which the BitOps of layers are told where an architecture's file names no input, as in the paper."""

_DRAWING_DPI, _DRAWING_COLOURS = 130, 64
_MOST_CANDIDATES = 24  # of a block, in a picture of its distribution; the others are put together


class Drawings:
    """Pictures of architectures, each made once, by its place in ``files``."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self._known: dict[str, int] = {}

    def add(self, key: str, make: Callable[[], Figure]) -> int:
        """The index of a picture, made where none of this key is there yet."""
        if key not in self._known:
            self._known[key] = len(self.files)
            self.files.append(small_png(make()))
        return self._known[key]


def report_contents(
    trials: Sequence[Trial], crops: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[dict[str, Any], list[bytes]]:
    """Everything that a report says about its trials.

    Args:
        trials: at least one that is done.
        crops: by the trial's name its crops of images, as ``quantnas_ext.sr.evaluation.crops`` makes them.

    Returns:
        Plain data, and the architecture drawings (.png) that ``drawing`` of a trial is the index of.

    Raises:
        InputError: no trial that is done can be used: its files are damaged, or its space is not known. Where others
            can, such a trial counts as failed.
    """
    drawings = Drawings()
    spaces: dict[str, _Space] = {}
    entries = []
    errors: list[InputError] = []
    for trial in trials:
        try:
            entry = _entry(trial, drawings, spaces)
        except InputError as error:
            errors.append(error)
            entry = _told(replace(trial, status="failed", error=str(error)))
        entries.append(entry | {"crops": list(crops.get(trial.name, ()))})
    if errors and not any(entry["status"] == "done" for entry in entries):
        raise errors[0]
    costs = list(dict.fromkeys(key for entry in entries for key in entry["costs"]))
    named = dict.fromkeys(name for entry in entries for name in entry["scores"])
    datasets = [name for name in named if any(points_of(entries, name, key) for key in costs)]
    styles = method_styles([entry["method"] for entry in entries])
    content = {
        "title": _title(trials),
        "trials": entries,
        "costs": [{"key": key, "name": _cost_name(key, entries)} for key in costs],
        "datasets": datasets,
        "styles": {method: {"colour": colour, "shape": shape} for method, (colour, shape) in styles.items()},
        "fronts": {data: {key: _front(entries, data, key) for key in costs} for data in datasets},
        "paper": _paper(entries),
        "spaces": [space.to_dict() for space in spaces.values()],
    }
    return json_values(content), drawings.files


def points_of(entries: Sequence[Mapping[str, Any]], dataset: str, cost: str) -> list[Point]:
    """The runs that have both figures."""
    found = []
    for entry in entries:
        value, psnr = entry["costs"].get(cost), entry["scores"].get(dataset, {}).get("ours", {}).get("psnr")
        if value and psnr is not None:
            found.append(Point(entry["name"], entry["method"], float(value), float(psnr)))
    return found


def data_uri(content: bytes, kind: str) -> str:
    """A file as the address of an image."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _title(trials: Sequence[Trial]) -> str:
    parents = list(dict.fromkeys(trial.folder.resolve().parent for trial in trials))
    if len(trials) == 1:
        return trials[0].name
    sweeps = list(dict.fromkeys(path.parent.name for path in parents if path.name == "trials"))
    return ", ".join(sweeps) if len(sweeps) == len(parents) else f"{len(trials)} runs"


def _entry(trial: Trial, drawings: Drawings, spaces: dict[str, _Space]) -> dict[str, Any]:
    """What is said of one trial."""
    entry = _told(trial)
    if trial.architecture is not None and trial.status == "done":
        entry |= _architecture(Architecture.load(trial.architecture), trial, drawings, spaces)
    if trial.history is not None:
        try:
            entry |= _search(trial.history)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            where = f"the history.json of run '{trial.folder}'"
            raise InputError(f"{where} cannot be used ({error}); give it as the search wrote it") from error
    return entry


def _told(trial: Trial) -> dict[str, Any]:
    """What is said of a trial whatever it has found."""
    warmup = trial.section("search").get("warmup_epochs")
    return {
        "name": trial.name,
        "folder": str(trial.folder),
        "status": trial.status,
        "error": trial.error,
        "method": trial.method,
        "seed": trial.seed,
        "budget": trial.budget,
        "scores": trial.scores,
        "costs": {},
        "config": _flat(trial.config),
        "config_text": yaml.safe_dump(dict(trial.config), sort_keys=False, allow_unicode=True) if trial.config else "",
        "scale": trial.scale,
        "commands": _commands(trial),
        "warmup_epochs": warmup if type(warmup) is int else None,
    }


def _architecture(found: Architecture, trial: Trial, drawings: Drawings, spaces: dict[str, _Space]) -> dict[str, Any]:
    """The network of a trial: its costs, drawing, blocks and layers."""
    space = build_space(found.space, found.arguments)
    tree, diagram = ChoiceTree.of(space), diagram_of(space)
    chosen = chosen_candidates(tree, tree.complete(found.choices))
    inputs = [cost.input for cost in found.costs if cost.name == "bitops" and cost.input]
    shape = inputs[0] if inputs else COST_INPUT
    layers = layer_costs(space, tree, found.choices, shape)
    versions, seconds = (found.provenance.get(name) for name in ("versions", "search_seconds"))
    key = json.dumps([found.space, found.arguments, found.choices], sort_keys=True, default=str)
    same_space = json.dumps([found.space, found.arguments], sort_keys=True, default=str)
    if same_space not in spaces:
        spaces[same_space] = _Space(found, space, shape)
    spaces[same_space].add(trial)
    return {
        "space": found.space,
        "architecture_text": trial.architecture.read_text(encoding="utf-8") if trial.architecture else "",
        "costs": found.cost,
        "cost_names": {cost.key: cost_column(cost).heading for cost in found.costs},
        "drawing": None if diagram is None else drawings.add(key, lambda: architecture_figure(diagram, chosen)),
        "blocks": [{"block": block, **_named(candidate)} for block, candidate in chosen.items()],
        "layers": [
            {
                **{name: value for name, value in asdict(layer).items() if name != "precision"},
                "weight_bits": layer.precision.weight_bits,
                "activation_bits": layer.precision.activation_bits,
            }
            for layer in layers
        ],
        "input": list(shape),
        "choices": {label: _plain(value) for label, value in found.choices.items()},
        "versions": versions if isinstance(versions, dict) else {},
        "search_seconds": seconds if isinstance(seconds, int | float) else None,
    }


class _Space:
    """What the architectures of a space cost, before any search, and the budgets of the trials in it."""

    def __init__(self, found: Architecture, space: ModelSpace, shape: tuple[int, ...]) -> None:
        self._told = {
            "name": found.space,
            "arguments": _flat(found.arguments),
            "input": " × ".join(map(str, shape[2:])),
        }
        self._range: CostRange | None = None
        self._budgets: dict[float, None] = {}
        self._trials: list[str] = []
        try:
            (self._range,) = cost_ranges(space, [BitOps(shape)])
        except InputError as error:
            self._told["unknown"] = str(error)

    def add(self, trial: Trial) -> None:
        """Take a trial in."""
        self._trials.append(trial.name)
        if trial.budget is not None:
            self._budgets[trial.budget] = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        if self._range is None:
            return {**self._told, "trials": self._trials, "budgets": []}
        ranges = {name: getattr(self._range, name) for name in ("least", "uniform", "largest")}
        budgets = [{"budget": value, "said": self._range.said_of(value)} for value in sorted(self._budgets)]
        return {**self._told, **ranges, "trials": self._trials, "budgets": budgets}


def _search(history: Mapping[str, Any]) -> dict[str, Any]:
    """How a search went: curves, and the distribution of every block over the epochs."""
    blocks = block_probabilities(history)
    epochs = epoch_numbers(history)
    records = history["epochs"]
    largest = np.stack([block.probabilities.max(axis=1) for block in blocks], axis=1)
    expected = next((key for key in records[0] if key.startswith("expected_")), None)
    names = {name: name for name in ("train_loss", "val_loss", "entropy")}
    if expected is not None:
        names["expected"] = expected
    curves = {name: [_number(record.get(key)) for record in records] for name, key in names.items()}
    curves["least_decided"] = largest.min(axis=1).round(4).tolist()
    curves["median_decided"] = np.median(largest, axis=1).round(4).tolist()
    operations = sorted({candidate.operation for block in blocks for candidate in block.candidates} - {""})
    colours = {name: to_hex(colour) for name, colour in operation_colours(operations).items()}
    last = records[-1]
    return {
        "entropy": _number(last.get("entropy")),
        "least_decided": float(largest[-1].min()),
        "least_decided_block": blocks[int(largest[-1].argmin())].block,
        "curves": curves | {"epochs": epochs.tolist(), "of": (expected or "").removeprefix("expected_")},
        "most_entropy": most_entropy(history),
        "operations": colours,
        "distributions": [_distribution(block) for block in blocks],
    }


def _distribution(block: BlockProbabilities) -> dict[str, Any]:
    """A block's probabilities in thousandths, the chosen candidate first; of many candidates the least become one."""
    order = stacking_order(block)
    peaks = block.probabilities.max(axis=0)
    kept = set(sorted(order, key=lambda index: -peaks[index])[:_MOST_CANDIDATES]) | {block.chosen}
    shown = [index for index in order if index in kept]
    candidates: list[dict[str, Any]] = [_named(block.candidates[index]) for index in shown]
    columns = [block.probabilities[:, index] for index in shown]
    if len(shown) < len(order):
        candidates.append({"operation": f"{len(order) - len(shown)} others", "bits": ""})
        columns.append(1 - np.sum(columns, axis=0))
    thousandths = [np.clip(np.rint(1000 * column), 0, 1000).astype(int).tolist() for column in columns]
    return {"block": block.block, "candidates": candidates, "thousandths": thousandths}


def _number(value: Any) -> float | None:
    """A number of an epoch, or None where the search had none; raises ``TypeError`` for what is no number."""
    return None if value is None else float(value + 0)


def _named(candidate: Candidate) -> dict[str, str]:
    return {"operation": candidate.operation, "bits": precisions_name(candidate.precisions)}


def _front(entries: Sequence[Mapping[str, Any]], dataset: str, cost: str) -> dict[str, list[str]]:
    """Names of the runs on the front, and of its hull's corners."""
    points = points_of(entries, dataset, cost)
    return {
        "front": [point.name for point in undominated(points)],
        "hull": [point.name for point in hull(points)],
    }


def _paper(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The paper's points and the data set for which they hold, where a run at x4 was evaluated on it."""
    for entry in entries:
        if entry["scale"] == 4:
            for dataset in entry["scores"]:
                if dataset.lower() == "set14":
                    return {"dataset": dataset, "cost": "bitops_32", "points": [asdict(point) for point in PAPER]}
    return {}


def _cost_name(key: str, entries: Sequence[Mapping[str, Any]]) -> str:
    return next(entry["cost_names"][key] for entry in entries if key in entry.get("cost_names", {}))


def _commands(trial: Trial) -> list[str]:
    """How a run is made again from the files that the report shows: ``again.yaml``, ``again_architecture.yaml``."""
    if not trial.config or trial.architecture is None:
        return []
    found, training = "again_architecture.yaml", "runs/again/train"
    commands = []
    if trial.history is not None:
        by = "python recipes/baseline.py darts" if trial.method == "darts" else "accelerate launch recipes/search.py"
        found = "runs/again/architecture.yaml"
        commands.append(f"{by} --config again.yaml --set run=runs/again")
    commands.append(f"python recipes/train.py --config again.yaml --architecture {found} --run {training}")
    data = trial.section("data")
    tests, photographs = data.get("test"), data.get("photographs")
    if not tests and isinstance(photographs, str) and trial.scale:
        tests = {"photographs": f"{photographs}/testx{trial.scale}"}
    if isinstance(tests, dict) and tests:
        given = " ".join(f"--data {shlex.quote(f'{name}={folder}')}" for name, folder in tests.items())
        network = f"--architecture {training}/architecture.yaml --weights {training}/network.safetensors"
        commands.append(f"python recipes/evaluate.py {network} {given}")
    return commands


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration by whole keys, values as text where they are no numbers."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def small_png(figure: Figure) -> bytes:
    """A drawing of few colours, a quarter of the size that matplotlib writes."""
    written, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(written, dpi=_DRAWING_DPI, facecolor="white", format="png")
    picture = Image.open(written).convert("RGB").quantize(_DRAWING_COLOURS, dither=Image.Dither.NONE)
    picture.save(reduced, "PNG", optimize=True)
    return reduced.getvalue()
