"""How many threads a process takes: by what it may use, what others leave free, and what more of them bring."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest
import torch

from quantnas_ext import threads
from quantnas_ext.threads import THREADS_NAME, available_cores, choose_threads, free_cores, set_threads

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine of four cores, of which three are free, without any launcher."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    monkeypatch.setattr(threads, "free_cores", lambda cores: min(3, cores))
    for name in [*os.environ]:
        if name.startswith(("ACCELERATE_", "TORCHELASTIC_", "OMP_NUM_THREADS", "LOCAL_WORLD_SIZE")):
            monkeypatch.delenv(name)
    return monkeypatch


def test_cores_are_those_of_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores() == (1, "1 core")
        set_threads(None)
        assert torch.get_num_threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_processes_share_the_cores_and_the_users_own_omp_num_threads_counts(four_cores: pytest.MonkeyPatch) -> None:
    assert available_cores() == (4, "4 cores")
    four_cores.setenv("LOCAL_WORLD_SIZE", "2")
    assert available_cores() == (2, "4 cores for 2 processes")
    four_cores.setenv("OMP_NUM_THREADS", "1,2")
    assert available_cores()[0] == 1
    four_cores.setenv("OMP_NUM_THREADS", "64")
    assert available_cores()[0] == 2
    for nonsense in ("", "many", "0"):
        four_cores.setenv("OMP_NUM_THREADS", nonsense)
        assert available_cores()[0] == 2


def test_the_one_thread_that_accelerate_launch_sets_is_not_the_users_wish(four_cores: pytest.MonkeyPatch) -> None:
    four_cores.setenv("ACCELERATE_USE_CPU", "true")
    four_cores.setenv("OMP_NUM_THREADS", "1")
    for launchers_own, expected in (({}, 4), ({"OMP_NUM_THREADS": "1"}, 1), ({"OMP_NUM_THREADS": "2"}, 2)):
        launcher = subprocess.Popen(["sleep", "60"], env=launchers_own)
        try:
            four_cores.setattr(os, "getppid", lambda launcher=launcher: launcher.pid)
            assert available_cores()[0] == expected
        finally:
            launcher.kill()
            launcher.wait()


def test_a_core_that_another_program_keeps_busy_is_not_free() -> None:
    cores = len(os.sched_getaffinity(0))
    pin = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\nwhile True: pass"
    busy = subprocess.Popen([sys.executable, "-c", pin])
    try:
        time.sleep(0.3)
        assert free_cores(cores) < cores
    finally:
        busy.kill()
        busy.wait()


def test_more_threads_are_taken_only_where_cores_are_free_and_a_step_gains(
    four_cores: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gains() -> None:
        time.sleep(0.03 / torch.get_num_threads())

    def gains_nothing() -> None:
        time.sleep(0.01)

    assert choose_threads(step=gains).count == torch.get_num_threads() == 3
    said = r"3 threads of 4 cores: 3 free, a step takes \d+ ms with 3 and \d+ with 1"
    assert re.match(said, capsys.readouterr().out)
    assert choose_threads(step=gains_nothing).count == torch.get_num_threads() == 1
    assert choose_threads().count == 3
    four_cores.setattr(threads, "free_cores", lambda cores: 0)
    capsys.readouterr()
    assert choose_threads(step=gains).count == torch.get_num_threads() == 1
    assert capsys.readouterr().out == "1 thread of 4 cores: other programs leave 0 free\n"


def test_a_run_goes_on_with_the_threads_it_began_with(four_cores: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert choose_threads(tmp_path).count == 3
    assert json.loads((tmp_path / THREADS_NAME).read_text())["count"] == 3
    four_cores.setattr(threads, "free_cores", lambda cores: 0)
    assert choose_threads(tmp_path).count == torch.get_num_threads() == 3
    for damaged in ("{", '{"count": "many"}', '{"count": -1}', "[]"):
        (tmp_path / THREADS_NAME).write_text(damaged)
        assert choose_threads(tmp_path).count == 1


def test_waiting_threads_sleep_unless_the_user_has_set_something() -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    script = f"import quantnas_ext, os; print([os.environ.get(name) for name in {names}])"
    for own, expected in (
        ({}, ["PASSIVE", "0", None]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None, None]),
        ({"GOMP_SPINCOUNT": "1000"}, [None, "1000", None]),
    ):
        environment = {name: value for name, value in os.environ.items() if name not in names} | own
        result = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == str(expected)


@pytest.mark.parametrize(
    "file", [*ROOT.glob("recipes/*.py"), *ROOT.glob("benchmarks/*.py")], ids=lambda file: file.name
)
def test_programs_load_the_package_before_torch(file: Path) -> None:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            packages = {str(name).partition(".")[0] for name in names}
            if "quantnas_ext" in packages:
                return
            assert packages <= sys.stdlib_module_names
    raise AssertionError("the package is not imported at all")
