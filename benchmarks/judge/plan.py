"""Which jobs there are to do, as far as the results so far tell, and what they say together."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.judge.methods import DRAWN, HAND_MOST, METHODS, RANDOM_MOST, RANKED, REFERENCE, SEARCH, VERSION, Space

Results = Mapping[str, Mapping[str, Any]]
"""What the jobs gave, by their keys."""


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
        rankings: What supernets say of architectures, and what these are worth alone.
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
        early = [name for name in METHODS if name in ("joint", "hand", "random", "measured", "one_path")]
        for names in (early, [name for name in METHODS if name not in early]):
            for budget in budgets:
                for seed in seeds:
                    for name in names:
                        if name in self.settings.methods and (METHODS[name].budgeted or budget == budgets[0]):
                            self._run(space, name, budget if METHODS[name].budgeted else None, seed)
        for name in RANKED:
            if name in self.settings.methods and self.settings.spaces[space].ranked:
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
            costs = self._result(self.job("hand", f"costs, {space}", space, {"version": METHODS["hand"].version}))
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
        depends["version"] = METHODS["random"].version
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
