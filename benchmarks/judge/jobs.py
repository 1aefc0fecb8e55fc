"""A job's command lines, and its result from the files that they leave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.judge.plan import Job
from quantnas_ext import Architecture

ROOT = Path(__file__).resolve().parents[2]


def commands(job: Job, folder: Path, data: Path) -> list[list[str]]:
    """The command lines of a job, one after the other, in an empty folder of its own."""
    of = job.depends
    base = folder / "base.yaml"
    base.write_text(json.dumps({"run": str(folder / "run"), "data": {"train": [str(data / "train")]}}))
    values = dict(of.get("overrides", {})) | {"seed": of.get("seed", 0)}
    if job.kind == "training":
        Architecture(**of["architecture"]).save(folder / "a.yaml")
    else:
        values |= {"space.name": of["space"], "space.arguments": of["arguments"]}
        if of.get("budget"):
            values["search.bitops_budget"] = 1e9 * of["budget"]
        (folder / "ask.json").write_text(json.dumps(of))
    configured = ["--config", str(base)]
    for key, value in values.items():
        configured += ["--set", f"{key}={json.dumps(value)}"]
    out = ["--out", str(folder / "out.json")]
    parts = [str(ROOT / "benchmarks" / "judge" / "parts.py"), job.kind, "--ask", str(folder / "ask.json"), *out]
    if job.kind == "search":
        recipe, *subcommand = of["command"]
        return [[str(ROOT / "recipes" / recipe), *subcommand, *configured]]
    if job.kind == "draw":
        options = ["--count", str(of["count"]), "--output", str(folder / "drawn")]
        return [[str(ROOT / "recipes" / "baseline.py"), "random", *configured, *options]]
    if job.kind in ("hand", "ranking"):
        return [[*parts, *(configured if job.kind == "ranking" else ())]]
    recipes, train, network = ROOT / "recipes", folder / "train", ["--architecture", str(folder / "a.yaml")]
    scores = [f"--data={test.name}={test}" for test in sorted((data / "test").iterdir())]
    return [
        [str(recipes / "train.py"), *configured, *network, "--run", str(train)],
        [str(recipes / "evaluate.py"), *network, "--weights", str(train / "network.safetensors"), *scores, *out],
    ]


def collect(job: Job, folder: Path) -> dict[str, Any]:
    """What a finished job gave, from the files that it left."""
    if job.kind in ("hand", "ranking"):
        return dict(json.loads((folder / "out.json").read_text()))
    if job.kind == "draw":
        return {"architectures": [_architecture(path) for path in sorted((folder / "drawn").glob("*.yaml"))]}
    if job.kind == "training":
        scores = json.loads((folder / "out.json").read_text())["datasets"]
        return {"psnr": {name: round(score["network"]["mean"]["psnr"], 4) for name, score in scores.items()}}
    run = folder / "run" / "precisions" if "two_step" in job.depends["command"] else folder / "run"
    found: dict[str, Any] = {"architecture": _architecture(run / "architecture.yaml")}
    if (run / "derived.json").exists():
        scores = json.loads((run / "derived.json").read_text())["scores"]
        found["gap"] = round(scores["supernet"]["psnr"] - scores["derived"]["psnr"], 3)
        found |= course(json.loads((run / "history.json").read_text()), job.depends["budget"])
    return found


def _architecture(path: Path) -> dict[str, Any]:
    """What an architecture file says, in the form that results have."""
    found = Architecture.load(path)
    described = {"space": found.space, "arguments": found.arguments, "choices": found.choices}
    return {**described, "cost": {"bitops_32": found.cost["bitops_32"]}}


def course(history: Mapping[str, Any], budget: float | None) -> dict[str, Any]:
    """Expected cost over the budget at every epoch, and the share of blocks with a joint probability above 0.9."""
    labels, epochs = history["labels"], history["epochs"]
    last = epochs[-1]["probabilities"]
    confidences = {}
    for label, choice in labels.items():
        if choice["parent"] is None:
            joint = []
            for value, probability in zip(choice["values"], last[label], strict=True):
                below = [other for other, its in labels.items() if its["parent"] == [label, value]]
                for child in below:
                    probability *= max(last[child])
                joint.append(probability)
            confidences[label] = max(joint)
    spent = next((key for key in epochs[-1] if key.startswith("expected_") and "bitops" in key.lower()), None)
    result: dict[str, Any] = {"decided": sum(value > 0.9 for value in confidences.values()) / len(confidences)}
    if spent is not None and budget is not None:
        result["cost_over_budget"] = [round(epoch[spent] / (1e9 * budget), 4) for epoch in epochs]
    return result
