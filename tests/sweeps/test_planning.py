"""Which trials a sweep has, and what is refused before any of them runs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantnas_ext.errors import InputError
from quantnas_ext.sweeps.checking import check_sweep
from quantnas_ext.sweeps.experiment import experiment_config, share_of_cores
from quantnas_ext.sweeps.planning import METHODS, plan_grid, plan_trial, search_space, trial_name
from quantnas_ext.sweeps.sweep_file import SweepConfig, load_sweep, save_sweep, shipped_sweeps
from quantnas_ext.sweeps.sweep_folder import SweepFolder, TrialRecord
from quantnas_ext.sweeps.tuner import live_jobs

TRIALS = Path("sweep/trials")


def sweep_of(**values: Any) -> SweepConfig:
    return SweepConfig(**{"parameters": {"seed": [0]}, **values})


def test_every_combination_is_one_trial_with_its_own_folder_and_configuration() -> None:
    lists = {"method": list(METHODS), "seed": [0, 1], "search.bitops_budget": [1.5e9, 4e9]}
    planned = plan_grid(sweep_of(parameters=lists, threads=3), TRIALS)
    assert len({trial.name for trial in planned}) == len(planned) == (len(METHODS) - 1) * 4 + 2  # darts keeps no budget
    for trial in planned:
        assert trial.config.run == str(TRIALS / trial.name) and trial.config.search.threads == 3
        assert trial.config.seed == trial.parameters["seed"]
        assert trial.config.search.bitops_budget == trial.parameters.get("search.bitops_budget")
        if trial.method in ("noise", "direct", "direct_separate"):
            assert trial.config.search.quantization == trial.method
    assert not next(trial for trial in planned if trial.method == "random").config.train.from_supernet
    first, second = planned[:2]  # neighbours have no warm-up in common
    assert (first.method, first.parameters["seed"]) != (second.method, second.parameters["seed"])


def test_equal_parameters_have_one_name_in_any_order_and_others_another() -> None:
    assert (
        trial_name({"seed": 0, "search.bitops_budget": 1.5e9, "method": "noise"}) == "noise_bitops_budget_1.5e9_seed_0"
    )
    values = {
        "search.bitops_budget": [1.5e9, 1500000001.0, 1e-5, None],
        "search.costs": [[], [{"cost": "bytes", "budget": 1}], [{"cost": "bytes", "budget": 2}]],
        "space.name": ["a", "a/b", "a b", "../x", "é"],
    }
    named: dict[str, Any] = {}
    for combination in itertools.product(*values.values()):
        given = dict(zip(values, combination, strict=True))
        name = trial_name(given)
        assert name == trial_name(dict(reversed(given.items())))
        assert named.setdefault(name, given) is given
        assert name == Path(name).name and len(name) < 120 and name.isascii() and " " not in name


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"parameters": {}}, "no trial to run"),
        ({"parameters": {"seed": []}}, "at least one value"),
        ({"parameters": {"seed": {"_type": "randint", "_value": [0, 9]}}}, "go with a tuner of NNI's"),
        ({"parameters": {"seed": list(range(1000)), "search.epochs": list(range(1000))}}, "a grid of 1,000,000 trials"),
        ({"parameters": {"method": ["noise", "nose"]}}, "did you mean 'noise'"),
        ({"parameters": {"search.epoks": [3]}}, "did you mean 'search.epochs'"),
        ({"parameters": {"seed": ["x"]}}, "trial 'seed_x': .*'seed' must be a whole number"),
        ({"set": ["data.test={a: b, c: d}"]}, "exactly one dataset folder"),
        ({"tuner": {"name": "TPEE"}, "trials": 3}, "did you mean 'tpe'"),
        ({"tuner": {"name": "TPE"}}, "give 'trials'"),
        ({"tuner": {"name": "TPE"}, "trials": 3, "parameters": {"seed": {"_type": "x"}}}, "NNI's search spaces"),
        ({"architectures": "Random", "trials": 3}, "takes the place of 'parameters'"),
        ({"architectures": "Random", "parameters": {}}, "give 'trials'"),
        ({"architectures": "Rondom"}, "did you mean 'Random'"),
        ({"concurrency": 0}, "'concurrency' must be at least 1"),
        ({"trials": 10**6}, "'trials' must be at least 1 and at most 1000"),
        ({"port": 99999}, "'port' must be"),
        ({"tuners": {}}, "did you mean 'tuner'"),
        ({"training_service": {"platform": "remot"}}, "'training_service'"),
        ({"training_service": {"platform": "remote"}}, "'training_service'"),
        ({"training_service": {"platform": "local", "gpus": 3}}, "'training_service'"),
    ],
)
def test_a_sweep_that_could_not_run_is_refused_in_a_sentence(
    values: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"run": str(tmp_path / "run"), "parameters": {"seed": [0]}, **values}))
    with pytest.raises(InputError, match=sentence) as refused:
        sweep = load_sweep(str(file))
        folder = SweepFolder(sweep.run)
        check_sweep(sweep, folder)
        experiment_config(sweep, folder, 1)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


def test_a_file_with_a_tag_makes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("run: !!python/object/apply:os.system ['touch made']\n")
    with pytest.raises(InputError, match="not valid YAML"):
        load_sweep(str(file))


def test_a_saved_sweep_is_read_back_equal(tmp_path: Path) -> None:
    sweep = load_sweep("sweep_demo", ["parameters={method: [noise], seed: [1, 2]}", "tuner={name: TPE}", "trials=4"])
    assert sweep.parameters == {"method": ["noise"], "seed": [1, 2]} and not sweep.grid
    save_sweep(sweep, tmp_path / "sweep.yaml")
    assert load_sweep(str(tmp_path / "sweep.yaml")) == sweep
    with pytest.raises(InputError, match="whole key of the sweep"):
        load_sweep("sweep_demo", ["tuner.name=TPE"])


def test_sweeps_that_ship_can_run_and_the_demo_has_six_trials() -> None:
    for name in shipped_sweeps():
        sweep = load_sweep(name)
        records = check_sweep(sweep, SweepFolder(sweep.run))
        assert name != "sweep_demo" or len(records) == 6


def test_nni_gets_lists_as_choices_and_its_own_spaces_as_they_are() -> None:
    free = {"_type": "loguniform", "_value": [1e9, 1e10]}
    sweep = sweep_of(parameters={"method": ["noise"], "search.bitops_budget": free}, tuner={}, trials=3)
    assert search_space(sweep) == {"method": {"_type": "choice", "_value": ["noise"]}, "search.bitops_budget": free}


def test_trials_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantnas_ext.threads.available_cores", lambda: (8, "8 cores"))
    assert share_of_cores(sweep_of(), 3) == (3, 2)
    assert share_of_cores(sweep_of(), 100) == (8, 1)
    assert share_of_cores(sweep_of(threads=4), 100) == (2, 4)
    assert share_of_cores(sweep_of(concurrency=1), 100) == (1, 8)


def test_a_record_has_what_a_report_reads_and_survives_damage(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    trial = plan_trial(sweep_of(), {"method": "direct", "seed": 3, "search.bitops_budget": 2e9}, folder.trials)
    folder.write(TrialRecord.of(trial, 1))
    told = yaml.safe_load((folder.trials / trial.name / "trial.json").read_text())
    wanted = {"name": trial.name, "method": "direct", "seed": 3, "budget": 2e9, "status": "waiting", "error": ""}
    assert wanted.items() <= told.items()
    (folder.trials / "damaged").mkdir()
    (folder.trials / "damaged" / "trial.json").write_text("{")
    assert [record.name for record in folder.records()] == [trial.name]


def test_the_page_on_sweeps_has_every_key_with_its_default_and_every_method() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sweep.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", page, re.MULTILINE)
    defaults = dataclasses.asdict(SweepConfig()) | {"tuner": {"name": "Grid"}}
    assert {key: yaml.safe_load(value) for key, value in rows} == defaults
    assert all(f"`{method}`" in page for method in METHODS)


def test_jobs_that_nni_takes_up_again_are_told_by_its_database(tmp_path: Path) -> None:
    database = tmp_path / "nni.sqlite"
    assert live_jobs(database) == []
    events = [
        ("a", "WAITING", 0), ("a", "RUNNING", None), ("a", "SUCCEEDED", None), ("b", "RUNNING", 1), ("c", "WAITING", 2),
        ("b", "ADD_RESUMED", ""), ("d", "WAITING", 3), ("d", "FAILED", None),
    ]  # fmt: skip
    with sqlite3.connect(database) as connection:
        connection.execute("create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text)")
        for time, (job, event, seed) in enumerate(events):
            data = json.dumps({"parameters": {"seed": seed}}) if isinstance(seed, int) else seed
            connection.execute("insert into TrialJobEvent values (?, ?, ?, ?)", (time, job, event, data))
    assert live_jobs(database) == [{"seed": 1}, {"seed": 2}]
