"""The judge of searches: what it plans, that it goes on where it was, and its statistics, without any training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.judge import jobs, methods, plan, running
from benchmarks.judge import page as pages

SPACES = {"basic": methods.Space("sr_basic", {"cells": 3}, (0.85, 1.1), 2, ranked=True)}
METHODS = list(methods.METHODS)
SETTINGS = plan.Settings("images", SPACES, METHODS, methods.SEARCH, methods.TRAINING, drawn=4, hand_most=2)


def architecture(name: str, gbitops: float) -> dict[str, Any]:
    return {"space": "sr_basic", "arguments": {}, "choices": {"only": name}, "cost": {"bitops_32": gbitops * 1e9}}


class Computer:
    """Gives results without computing them; breaks off after so many jobs."""

    def __init__(self, most: int = 10**6) -> None:
        self.most = most
        self.done: list[plan.Job] = []

    def __call__(self, job: plan.Job) -> dict[str, Any]:
        if len(self.done) >= self.most:
            raise KeyboardInterrupt
        self.done.append(job)
        return self.result(job) | {"cpu_seconds": 250.0 if job.kind == "search" else 100.0, "seconds": 1.0}

    def stop(self) -> None:
        self.most = 0

    @staticmethod
    def result(job: plan.Job) -> dict[str, Any]:
        of = job.depends
        if job.kind == "search":
            # With one sampled path the search finds what the mixture finds.
            name = f"found {of['command']} {of['budget']} {of['seed']}"
            return {"architecture": architecture(name, of["budget"] or 2), "gap": 1.0, "cost_over_budget": [4.0, 1.0]}
        if job.kind == "draw":
            drawn = [
                architecture(f"random {index} {of['budget']}", 0.96 * of["budget"]) for index in range(of["count"])
            ]
            return {"architectures": drawn}
        if job.kind == "hand":
            costs = {"3x3": (0.8, 0.84, 3.0), "1x1": (0.2, 0.3, 0.7), "5x5": (1.0, 1.2, 4.0), "1x3": (0.1, 0.2, 0.9)}
            return {
                "networks": [
                    {"pattern": pattern, **architecture(f"{pattern} {cost}", cost)}
                    for pattern, some in costs.items()
                    for cost in some
                ]
            }
        if job.kind == "ranking":
            return {"psnr": [float(index) for index in range(len(of["ranked"]))]}
        choices = of["architecture"]["choices"]["only"]
        worth = 26.0 if "found" in choices else 25.5 if "x" in choices else 25.0 + 0.1 * int(choices.split()[1])
        return {"psnr": {"validation": worth + 1, "Set14": worth + 0.02 * of["seed"]}}


def test_an_interrupted_run_goes_on_and_does_nothing_twice(tmp_path: Path) -> None:
    first, second, third = Computer(most=11), Computer(), Computer()
    with pytest.raises(KeyboardInterrupt):
        running.run_all(SETTINGS, tmp_path, first, 1)
    assert not running.run_all(SETTINGS, tmp_path, second, 2)
    assert not running.run_all(SETTINGS, tmp_path, third, 2)
    keys = [job.key for job in (*first.done, *second.done)]
    assert len(first.done) == 11 and not third.done
    assert len(set(keys)) == len(keys) == len(list(tmp_path.glob("*.json")))
    # The tightest budget comes first, and a found network is trained before anything else is searched.
    assert [job.kind for job in first.done[:2]] == ["search", "training"]
    assert first.done[0].depends["budget"] == 0.85
    planned = plan.Plan(SETTINGS, running.load_results(tmp_path))
    assert not planned.jobs and not planned.later
    assert len(planned.runs) == sum(planned.wanted.values()) == (len(METHODS) - 1) * 2 * 2 + 2
    # Two methods that find the same network share its training.
    found = [job for job in (*first.done, *second.done) if "found ['search.py'] 0.85 0" in str(job.depends)]
    assert [job.kind for job in found] == ["training"]


def test_a_changed_method_runs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running.run_all(SETTINGS, tmp_path, Computer(), 2)
    before = methods.METHODS["two_step"]
    changed = dataclasses.replace(before, version=before.version + 1)
    monkeypatch.setitem(methods.METHODS, "two_step", changed)
    again = Computer()
    running.run_all(SETTINGS, tmp_path, again, 2)
    assert {(job.kind, *job.depends["command"]) for job in again.done} == {("search", "baseline.py", "two_step")}
    assert len(again.done) == 4


def test_one_failed_job_leaves_the_others(tmp_path: Path) -> None:
    class Broken(Computer):
        def __call__(self, job: plan.Job) -> dict[str, Any]:
            if job.depends.get("command") == ["baseline.py", "darts"]:
                raise RuntimeError("no memory")
            return super().__call__(job)

    assert len(running.run_all(SETTINGS, tmp_path, Broken(), 2)) == 2
    missing = plan.Plan(SETTINGS, running.load_results(tmp_path))
    assert {job.depends["command"][-1] for job in missing.jobs} == {"darts"}
    assert missing.later == {"training": 2}


def test_networks_by_hand_are_the_costliest_within_the_budget() -> None:
    networks = Computer.result(plan.Job("hand", "", {}))["networks"]
    names = [network["choices"]["only"] for network in plan.by_hand(networks, 0.85, 3)]
    assert names == ["3x3 0.84", "1x1 0.7", "1x3 0.2"]


def test_the_best_by_validation_counts_and_random_ones_cost_no_more_than_the_search(tmp_path: Path) -> None:
    running.run_all(SETTINGS, tmp_path, Computer(), 2)
    planned = plan.Plan(SETTINGS, running.load_results(tmp_path))
    (run,) = (run for run in planned.runs if (run["method"], run["budget"], run["seed"]) == ("random", 0.85, 0))
    # A search of 250 s and a training of 100 s pay for three trainings.
    assert run["networks"] == 3
    assert run["psnr"]["Set14"] == pytest.approx(25.2)
    assert run["mean_psnr"]["Set14"] == pytest.approx(25.1)
    (joint, *_) = planned.rankings
    assert (joint["budget"], len(joint["supernet"]), len(joint["trained"])) == (1.1, 4, 4)


def test_the_course_of_a_search() -> None:
    labels = {
        "block": {"values": ["a", "b"], "parent": None},
        "block__a__bits": {"values": [4, 8], "parent": ["block", "a"]},
        "other": {"values": ["a", "b"], "parent": None},
    }
    last = {"block": [0.95, 0.05], "block__a__bits": [0.9, 0.1], "other": [0.08, 0.92]}
    epochs = [{"probabilities": {}, "expected_bitops": 3e9}, {"probabilities": last, "expected_bitops": 0.9e9}]
    course = jobs.course({"labels": labels, "epochs": epochs}, 1.0)
    assert course == {"decided": 0.5, "cost_over_budget": [3.0, 0.9]}


def test_intervals_and_differences_in_pairs() -> None:
    low, high = pages.interval([25.0, 25.2, 25.4, 25.6]) or (0.0, 0.0)
    assert 25.0 <= low < 25.3 < high <= 25.6
    assert pages.interval([25.0]) is None
    # However different the seeds, the difference within each is the same.
    runs = [
        {"method": method, "seed": seed, "psnr": {"Set14": 25 + seed + better}}
        for method, better, seeds in (("joint", 0.5, (0, 1, 2)), ("hand", 0.0, (1, 2, 3)))
        for seed in seeds
    ]
    assert pages.differences(runs, "joint", "hand", "Set14") == [0.5, 0.5]
    assert pages.shown([0.5, 0.5], sign=True) == "+0.50 (+0.50 to +0.50)"


def test_the_page_keeps_what_was_written_by_hand_and_says_what_is_missing(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with pytest.raises(KeyboardInterrupt):
        running.run_all(SETTINGS, results, Computer(most=20), 1)
    (tmp_path / "images").mkdir()
    (tmp_path / "evidence.md").write_text(f"# Own title\n\n{pages.BEGIN}\nold\n{pages.END}\nOwn end.\n")
    planned = plan.Plan(SETTINGS, running.load_results(results))
    pages.write_page(planned, methods.METHODS, methods.REFERENCE, tmp_path)
    text = (tmp_path / "evidence.md").read_text()
    assert text.startswith("# Own title\n") and text.endswith("Own end.\n") and "old" not in text
    assert "| 0.85 | joint search | 2 | 26.01 (26.00 to 26.02) |" in text
    assert "Missing: " in text and "two steps at 1.1 (2 of 2 seeds)" in text
    assert (tmp_path / "images" / "evidence.png").stat().st_size > 10_000


def test_command_lines_follow_from_what_a_job_depends_on(tmp_path: Path) -> None:
    job = plan.Plan(SETTINGS, {}).jobs[0]
    (command,) = jobs.commands(job, tmp_path, tmp_path / "data")
    assert command[0].endswith("recipes/search.py")
    assert "search.bitops_budget=850000000.0" in command and "seed=0" in command
    assert json.loads((tmp_path / "base.yaml").read_text())["data"]["train"] == [str(tmp_path / "data" / "train")]
