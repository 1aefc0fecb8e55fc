"""What the search finds, judged: against networks by hand, random ones, two steps and NNI's own DARTS.

    python benchmarks/search_quality.py [--quick] [--data DIR] [--only joint,hand] [--budgets 0.85] [--page]

Every method gives an architecture within a budget of BitOps (x4, 24 channels, 4 and 8 bits, no ADQ), which is trained
from scratch and scored; only the recipes' command lines are used for that. Finished jobs are kept in
``benchmarks/results``, each a small JSON file named by a digest of all it depends on: an interrupted run goes on, and a
changed method reruns only itself. Networks that several methods find are trained once a seed.

DIR holds a folder of images for each data set (or one with ``HR`` in it): Set5 and Set14 are for the test, the others
for training, without every tenth of their images, which are the validation that the best of several networks is chosen
by. Without DIR, and without ``../shared/data``, the photographs that ship with scikit-image and scikit-learn are taken.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantnas_ext import Architecture

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
Results = Mapping[str, Mapping[str, Any]]
"""What the jobs gave, by their keys."""


@dataclass(frozen=True)
class Method:
    """How an architecture comes about.

    Attributes:
        title: In tables.
        command: Recipe with its subcommand, or None where no search is run.
        overrides: Of the configuration, beside those of every search.
        version: To be raised by one when the code behind the method gives other results than before.
        budgeted: Whether it keeps a budget.
    """

    title: str
    command: tuple[str, ...] | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    budgeted: bool = True


ONE_PATH = {"search.relaxation": "one_path", "search.epochs": 60, "search.warmup_epochs": 30}
METHODS = {
    "joint": Method("joint search", ("search.py",)),
    "hand": Method("by hand, best by validation"),
    "random": Method("random, best by validation"),
    "one_path": Method("joint search, one sampled path", ("search.py",), ONE_PATH),
    "two_step": Method("two steps", ("baseline.py", "two_step")),
    "darts": Method("NNI's DARTS, no budget", ("baseline.py", "darts"), budgeted=False),
}
REFERENCE, RANKED = "joint", ("joint", "one_path")
"""The method that the others are compared with; those whose supernets are asked for a ranking."""


@dataclass(frozen=True)
class Space:
    """A space with its budgets.

    Attributes:
        name: Of the space.
        arguments: Of the space.
        budgets: In GBitOps at 32x32, the smallest first.
        seeds: Number of seeds.
    """

    name: str
    arguments: dict[str, Any]
    budgets: tuple[float, ...]
    seeds: int


SHAPE = {"scale": 4, "width": 24, "adq": False, "bits": [4, 8]}
SPACES = {
    "basic": Space("sr_basic", SHAPE | {"cells": 3}, (0.85, 1.1, 1.5), 5),
    "rfdn": Space("sr_rfdn", SHAPE | {"cells": 2, "share_cells": False, "fixed_bits": 8}, (1.2, 2.2), 3),
}
SEARCH = {
    "data.patch": 24,
    "data.batch_size": 8,
    "data.skip_small": True,
    "search.epochs": 20,
    "search.steps_per_epoch": 50,
    "search.warmup_epochs": 10,
    "search.architecture_learning_rate": 0.02,
    "search.threads": 1,
}
TRAINING = {"train.iterations": 1500, "train.learning_rate": 1e-3, "train.batch_size": 16, "train.patch": 24}
TRAINING |= {"train.validate_every": 1000000, "train.checkpoint_every": 1000000, "data.skip_small": True}
VERSION = 1
"""Of what all jobs have in common: the final training and the scores."""
DRAWN, HAND_MOST, RANDOM_MOST = 24, 5, 12
"""Architectures ranked; networks by hand at a budget, the costliest; random ones at most."""
GUESS = {"search": 400.0, "training": 200.0, "ranking": 600.0, "draw": 30.0, "hand": 120.0}
"""Seconds of a job of which none is done yet."""


@dataclass(frozen=True)
class Settings:
    """What a run of the judge does, from its command line."""

    data: str
    spaces: dict[str, Space]
    methods: Sequence[str]
    search: dict[str, Any]
    training: dict[str, Any]
    seeds: Sequence[int] | None = None
    drawn: int = DRAWN
    hand_most: int = HAND_MOST

    def seeds_of(self, space: str) -> Sequence[int]:
        """The seeds of a space."""
        return range(self.spaces[space].seeds) if self.seeds is None else self.seeds


@dataclass(frozen=True)
class Job:
    """One thing to run: its command lines follow from what it depends on alone.

    Attributes:
        kind: ``search``, ``training``, ``draw``, ``hand`` or ``ranking``.
        title: For people.
        depends: All that its result depends on.
    """

    kind: str
    title: str
    depends: dict[str, Any]

    @property
    def key(self) -> str:
        """Digest of what the job depends on."""
        text = json.dumps([self.kind, self.depends], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Plan:
    """The jobs that are to be done, in order, as far as the results so far tell.

    Attributes:
        jobs: That can start.
        later: How many more there will be of each kind, at least.
        runs: A row for each method, space, budget and seed whose results are whole, see ``_whole``.
        wanted: How many rows there will be, by (space, budget, method).
    """

    def __init__(self, settings: Settings, results: Results) -> None:
        self.settings, self.results = settings, results
        self.jobs: list[Job] = []
        self.later: Counter[str] = Counter()
        self.runs: list[dict[str, Any]] = []
        self.rankings: list[dict[str, Any]] = []
        self.wanted: Counter[tuple[str, float | None, str]] = Counter()
        self._planned: set[str] = set()
        for space in settings.spaces:
            self._plan(space)

    def _plan(self, space: str) -> None:
        """First what tells most: the tightest budget, the search, what is known and what is random."""
        budgets, seeds = self.settings.spaces[space].budgets, self.settings.seeds_of(space)
        early = [name for name in METHODS if name in ("joint", "hand", "random", "one_path")]
        for names in (early, [name for name in METHODS if name not in early]):
            for budget in budgets:
                for seed in seeds:
                    for name in names:
                        if name in self.settings.methods and (METHODS[name].budgeted or budget == budgets[0]):
                            self._run(space, name, budget if METHODS[name].budgeted else None, seed)
        for name in RANKED:
            if name in self.settings.methods:
                self._rank(space, name, budgets[len(budgets) // 2], seeds[0])

    def _result(self, job: Job) -> Any:
        """What a job gave; where it is still to be done it is planned, and there is None."""
        if job.key in self.results:
            return self.results[job.key]
        if job.key not in self._planned:
            self._planned.add(job.key)
            self.jobs.append(job)
        return None

    def _run(self, space: str, name: str, budget: float | None, seed: int) -> None:
        self.wanted[space, budget, name] += 1
        row: dict[str, Any] = {"space": space, "method": name, "budget": budget, "seed": seed}
        if METHODS[name].command is not None:
            found = self._result(self._search(space, name, budget, seed))
            architectures = None if found is None else [found["architecture"]]
            row |= {} if found is None else {"search": found}
            expected = 1
        elif name == "hand":
            costs = self._result(self.job("hand", f"costs of networks by hand, {space}", space, {}))
            expected = self.settings.hand_most
            architectures = None if costs is None else by_hand(costs["networks"], budget or 0.0, expected)
        else:
            drawn, expected = self._result(self._draw(space, budget, seed)), self._count(space, budget, seed)
            architectures = None if drawn is None or expected is None else drawn["architectures"][:expected]
        if architectures is None:
            self.later["training"] += expected or 2
            return
        trained = [self._result(self._training(architecture, seed)) for architecture in architectures]
        if all(result is not None for result in trained) and trained:
            self.runs.append(_whole(row, architectures, trained))

    def _count(self, space: str, budget: float | None, seed: int) -> int | None:
        """How many trainings the search and the training of its result would have paid for, in CPU time."""
        found = self._result(self._search(space, REFERENCE, budget, seed))
        trained = None if found is None else self._result(self._training(found["architecture"], seed))
        if found is None or trained is None:
            return None
        return min(RANDOM_MOST, self.settings.drawn, max(2, 1 + int(found["cpu_seconds"] / trained["cpu_seconds"])))

    def _rank(self, space: str, name: str, budget: float, seed: int) -> None:
        drawn = self._result(self._draw(space, budget, seed))
        if drawn is None:
            self.later.update(training=self.settings.drawn, ranking=1)
            return
        architectures = drawn["architectures"]
        trained = [self._result(self._training(architecture, seed)) for architecture in architectures]
        search = self._search(space, name, budget, seed)
        asked = search.depends | {"ranked": [architecture["choices"] for architecture in architectures]}
        scores = self._result(Job("ranking", search.title, asked))
        if scores is not None and all(result is not None for result in trained):
            row = {"space": space, "method": name, "budget": budget, "supernet": scores["psnr"]}
            self.rankings.append(row | {"trained": [result["psnr"] for result in trained]})

    def job(self, kind: str, title: str, space: str, depends: dict[str, Any]) -> Job:
        """A job in a space."""
        of = self.settings.spaces[space]
        return Job(kind, title, {"space": of.name, "arguments": of.arguments, **depends})

    def _search(self, space: str, name: str, budget: float | None, seed: int) -> Job:
        method = METHODS[name]
        assert method.command is not None
        overrides = self.settings.search | scaled(method.overrides, self.settings.search)
        depends = {"command": list(method.command), "overrides": overrides, "version": method.version}
        depends |= {"budget": budget, "seed": seed, "data": self.settings.data}
        return self.job("search", f"{space} {name} {budget or '-'} G seed {seed}", space, depends)

    def _draw(self, space: str, budget: float | None, seed: int) -> Job:
        depends = {"budget": budget, "seed": seed, "count": self.settings.drawn}
        return self.job("draw", f"{space} random {budget} G seed {seed}", space, depends)

    def _training(self, architecture: Mapping[str, Any], seed: int) -> Job:
        wanted = {name: architecture[name] for name in ("space", "arguments", "choices")}
        depends = {"architecture": wanted, "overrides": self.settings.training, "version": VERSION, "seed": seed}
        title = f"{architecture['space']} of {architecture['cost']['bitops_32'] / 1e9:.3f} G seed {seed}"
        return Job("training", title, depends | {"data": self.settings.data})


def scaled(overrides: Mapping[str, Any], search: Mapping[str, Any]) -> dict[str, Any]:
    """A method's overrides where all searches are shorter than usual: epochs in the same proportion."""
    part = search["search.epochs"] / SEARCH["search.epochs"]
    epochs = ("search.epochs", "search.warmup_epochs")
    return {key: max(1, round(part * value)) if key in epochs else value for key, value in overrides.items()}


def by_hand(networks: Sequence[dict[str, Any]], budget: float, most: int) -> list[dict[str, Any]]:
    """Of each pattern of operations the costliest precisions within a budget (GBitOps), of these the costliest."""
    best: dict[str, dict[str, Any]] = {}
    for network in sorted(networks, key=lambda network: network["cost"]["bitops_32"]):
        if network["cost"]["bitops_32"] <= budget * 1e9:
            best[network["pattern"]] = network
    return sorted(best.values(), key=lambda network: -network["cost"]["bitops_32"])[:most]


def _whole(
    row: Mapping[str, Any], architectures: Sequence[Mapping[str, Any]], trained: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A row with the scores of the network that is best by validation, and with means over all networks."""
    best = max(range(len(trained)), key=lambda index: trained[index]["psnr"]["validation"])
    means = {name: statistics.fmean(one["psnr"][name] for one in trained) for name in trained[0]["psnr"]}
    costs = [architecture["cost"]["bitops_32"] / 1e9 for architecture in architectures]
    values = {"psnr": trained[best]["psnr"], "gbitops": costs[best], "choices": architectures[best]["choices"]}
    return {**row, **values, "mean_psnr": means, "mean_gbitops": statistics.fmean(costs), "networks": len(trained)}


def commands(job: Job, folder: Path, data: Path) -> list[list[str]]:
    """The command lines of a job, one after the other, in an empty folder of its own."""
    of = job.depends
    base = folder / "base.yaml"
    base.write_text(json.dumps({"run": str(folder / "run"), "data": {"train": [str(data / "train")]}}))
    values = dict(of.get("overrides", {})) | {"seed": of.get("seed", 0)}
    if job.kind == "training":
        Architecture(**of["architecture"], cost={"bitops_32": 0, "bitops_256": 0, "bytes": 0}).save(folder / "a.yaml")
    else:
        values |= {"space.name": of["space"], "space.arguments": of["arguments"]}
        if of.get("budget"):
            values["search.bitops_budget"] = 1e9 * of["budget"]
        (folder / "ask.json").write_text(json.dumps(of))
    configured = ["--config", str(base)]
    for key, value in values.items():
        configured += ["--set", f"{key}={json.dumps(value)}"]
    out = ["--out", str(folder / "out.json")]
    parts = [str(ROOT / "benchmarks" / "search_quality_parts.py"), job.kind, "--ask", str(folder / "ask.json"), *out]
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
        return {"psnr": {name: round(score["network"]["psnr"], 4) for name, score in scores.items()}}
    run = folder / "run" / "precisions" if "two_step" in job.depends["command"] else folder / "run"
    found: dict[str, Any] = {"architecture": _architecture(run / "architecture.yaml")}
    if (run / "derived.json").exists():
        scores = json.loads((run / "derived.json").read_text())["scores"]
        found["gap"] = round(scores["supernet"]["psnr"] - scores["derived"]["psnr"], 3)
        found |= course(json.loads((run / "history.json").read_text()), job.depends["budget"])
    return found


def _architecture(path: Path) -> dict[str, Any]:
    """What an architecture file says, in the form that results have."""
    import yaml

    content = yaml.safe_load(path.read_text())
    space = content["space"]
    described = {"space": space["name"], "arguments": space["arguments"], "choices": content["choices"]}
    return {**described, "cost": {"bitops_32": content["cost"]["bitops_32"]}}


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


def load_results(folder: Path) -> dict[str, dict[str, Any]]:
    """All kept results by their keys."""
    contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {content["key"]: content["result"] for content in contents}


class Runner:
    """Runs the command lines of jobs, with one thread each.

    Args:
        work: Scratch folder.
        data: Folder of the prepared images.
    """

    def __init__(self, work: Path, data: Path) -> None:
        self.work, self.data = work, data
        self.stopped = False
        self.processes: set[subprocess.Popen[bytes]] = set()

    def __call__(self, job: Job) -> dict[str, Any]:
        """A job's result with the seconds it took; its folder is removed once it is done.

        Raises:
            RuntimeError: A command failed; the message has the end of what it wrote.
        """
        folder = self.work / "jobs" / job.key
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        begin, cpu = time.monotonic(), 0.0
        for command in commands(job, folder, self.data):
            cpu += self._run([PYTHON, *command], folder / "log.txt")
        result = collect(job, folder) | {"cpu_seconds": round(cpu, 1), "seconds": round(time.monotonic() - begin, 1)}
        shutil.rmtree(folder)
        return result

    def _run(self, command: list[str], log: Path) -> float:
        """Run one command line to its end; seconds of CPU time of it and of what it started."""
        own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        with log.open("ab") as out:
            started = {"stdout": out, "stderr": out, "env": os.environ | own, "cwd": ROOT, "start_new_session": True}
            process = subprocess.Popen(command, **started)
            self.processes.add(process)
            if self.stopped:
                self.stop()
            _, status, usage = os.wait4(process.pid, 0)
            self.processes.discard(process)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            end = "\n".join(log.read_text(errors="replace").replace("\r", "\n").splitlines()[-15:])
            raise RuntimeError(f"{' '.join(command[:3])} ... ended with {process.returncode}:\n{end}")
        return usage.ru_utime + usage.ru_stime

    def stop(self) -> None:
        """End everything that runs, and what is started from now on."""
        self.stopped = True
        for process in list(self.processes):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGKILL)


def run_all(settings: Settings, results: Path, runner: Runner, jobs: int) -> list[str]:
    """Run what is not done yet, so many jobs at a time, and keep every result.

    Returns:
        Titles of the jobs that failed; what hangs on them is not run.
    """
    results.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    running: dict[Future[dict[str, Any]], Job] = {}
    done = load_results(results)
    seconds: dict[str, list[float]] = {kind: [] for kind in GUESS}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while True:
                busy = {job.key for job in running.values()} | failed.keys()
                ready = [job for job in Plan(settings, done).jobs if job.key not in busy]
                for job in ready[: jobs - len(running)]:
                    running[pool.submit(runner, job)] = job
                if not running:
                    return list(failed.values())
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    try:
                        result = future.result()
                    except Exception as error:  # the other jobs go on
                        failed[job.key] = f"{job.kind} {job.title}"
                        print(f"failed: {job.kind} {job.title}: {error}", flush=True)
                        continue
                    kept = {"key": job.key, "kind": job.kind, "title": job.title, "depends": job.depends}
                    path = results / f"{job.kind}-{job.key}.json"
                    path.with_suffix(".partial").write_text(json.dumps(kept | {"result": result}) + "\n")
                    path.with_suffix(".partial").replace(path)
                    done[job.key] = result
                    seconds[job.kind].append(result["seconds"])
                    left = _left(Plan(settings, done), seconds, jobs)
                    print(f"{job.kind} {job.title}: {result['seconds']:.0f} s; {left}", flush=True)
        finally:
            runner.stop()


def _left(plan: Plan, seconds: Mapping[str, Sequence[float]], jobs: int) -> str:
    """How much there is to do still, and about how long that takes."""
    counts = plan.later + Counter(job.kind for job in plan.jobs)
    each = {kind: statistics.fmean(seconds[kind] or [GUESS[kind]]) for kind in counts}
    hours = sum(number * each[kind] for kind, number in counts.items()) / jobs / 3600
    return f"{sum(counts.values())} jobs and about {hours:.1f} h left"


def training_and_test(data: Path | None, scratch: Path) -> tuple[list[Path], list[Path], dict[str, list[Path]]]:
    """The images for training, for validation, and for each test; ``scratch`` takes the packaged photographs."""
    if data is None:
        from quantnas_ext.config import DataConfig
        from quantnas_ext.sr.photographs import with_photographs

        with_photographs(DataConfig(photographs=str(scratch)), 4)
        images, test = ([*sorted((scratch / f"{part}x4" / "HR").iterdir())] for part in ("train", "test"))
        held = [path for path in images if path.name.startswith(("china", "rocket"))]
        return [path for path in images if path not in held], held, {"photographs": test}
    training: list[Path] = []
    validation: list[Path] = []
    tests: dict[str, list[Path]] = {}
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        inside = folder / "HR" if (folder / "HR").is_dir() else folder
        images = sorted(path for path in inside.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))
        if folder.name in ("Set5", "Set14"):
            tests[folder.name] = images
        else:
            training += [path for index, path in enumerate(images) if index % 10 != 9]
            validation += images[9::10]
    return training, validation, tests


def prepared(data: Path | None, work: Path) -> tuple[Path, str]:
    """A folder with the dataset folder ``train`` and the folders of ``test``, and a digest of all their images."""
    training, validation, tests = training_and_test(data, work / "photographs")
    if not training or not validation or not tests:
        raise SystemExit(f"error: '{data}' has no training images or neither Set5 nor Set14 beside them")
    parts = {"train": training, "validation": validation, **tests}
    digest = hashlib.sha256()
    for name, images in parts.items():
        for path in images:
            digest.update(f"{name}/{path.name}".encode() + hashlib.sha256(path.read_bytes()).digest())
    identity = digest.hexdigest()[:16]
    folder = work / f"data-{identity}"
    if not (folder / "train").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        for name, images in parts.items():
            target = folder / ("photographs" if name == "train" else f"test/{name}")
            target.mkdir(parents=True)
            for number, path in enumerate(images):
                (target / f"{number:04d}_{path.name}").symlink_to(path.resolve())
        recipe = str(ROOT / "recipes" / "prepare_data.py")
        subprocess.run([PYTHON, recipe, str(folder / "photographs"), str(folder / "train"), "--scale", "4"], check=True)
    return folder, identity


def numbers(kind: type) -> Callable[[str], list[Any]]:
    """An argument's type: values with commas between."""
    return lambda text: [kind(part) for part in text.split(",")]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folders of images (default: ../shared/data, if any)")
    parser.add_argument("--quick", action="store_true", help="one budget, two seeds, short; results go to --work")
    parser.add_argument("--only", type=numbers(str), metavar="METHOD,..", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--spaces", type=numbers(str), metavar="SPACE,..", help=f"of {', '.join(SPACES)}")
    parser.add_argument("--budgets", type=numbers(float), metavar="G,..", help="GBitOps at 32x32")
    parser.add_argument("--seeds", type=numbers(int), metavar="N,..", help="seeds (default: 0 to 4, RFDN-like 0 to 2)")
    parser.add_argument("--jobs", type=int, default=2, help="jobs at a time, each with one thread (default: 2)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "search_quality", help="scratch folder")
    parser.add_argument("--results", type=Path, help="folder of the results (default: benchmarks/results)")
    parser.add_argument("--page", action="store_true", help="write docs/evidence.md from what there is, run nothing")
    arguments = parser.parse_args(argv)
    for name, given, known in (("only", arguments.only, METHODS), ("spaces", arguments.spaces, SPACES)):
        unknown = [value for value in given or () if value not in known]
        if unknown:
            parser.error(f"--{name} '{unknown[0]}' is not known; use some of {', '.join(known)}")
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs} is not possible; use at least 1")
    data = arguments.data or ROOT.parent / "shared" / "data"
    if arguments.data and not data.is_dir():
        parser.error(f"--data '{data}' is not a folder; name one that holds a folder of images for each data set")
    work = arguments.work.resolve()
    folder, identity = prepared(data if data.is_dir() else None, work)
    names = arguments.spaces or (["basic"] if arguments.quick else list(SPACES))
    spaces = {}
    for name in names:
        budgets = arguments.budgets or SPACES[name].budgets[: 1 if arguments.quick else None]
        spaces[name] = Space(SPACES[name].name, SPACES[name].arguments, tuple(sorted(budgets)), SPACES[name].seeds)
    settings = Settings(identity, spaces, arguments.only or list(METHODS), SEARCH, TRAINING, arguments.seeds)
    results = arguments.results or ROOT / "benchmarks" / "results"
    if arguments.quick:
        search = SEARCH | {"search.steps_per_epoch": 10, "search.epochs": 10, "search.warmup_epochs": 5}
        search["search.architecture_learning_rate"] = 0.2
        training = TRAINING | {"train.iterations": 150}
        seeds = arguments.seeds or (0, 1)
        settings = Settings(identity, spaces, settings.methods, search, training, seeds, drawn=4, hand_most=2)
        results = arguments.results or work / "quick_results"
    if arguments.page:
        sys.path.insert(0, str(ROOT))
        from benchmarks.search_quality_page import write_page

        print(write_page(Plan(settings, load_results(results)), METHODS, REFERENCE, ROOT / "docs"))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failed = run_all(settings, results, Runner(work, folder), arguments.jobs)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on")
        return 130
    if failed:
        print("failed:", *failed, sep="\n  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
