"""A real sweep: NNI's server, trials through `accelerate launch`, a crash, a kill, and what is left at the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from quantnas_ext.errors import InputError
from quantnas_ext.runs.run_folder import RunFolder
from quantnas_ext.sweeps import running
from quantnas_ext.sweeps.portal import PortalFailure
from quantnas_ext.sweeps.sweep_folder import SweepFolder
from recipes import sweep


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ended(arguments: list[str]) -> int:
    """The exit code of the recipe."""
    try:
        sweep.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def once(condition: Callable[[], Any], act: Callable[[], None]) -> threading.Thread:
    """Do something as soon as a condition holds, beside what this process does."""

    def wait() -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            if condition():
                act()
                return
            time.sleep(0.05)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def killed(workshop: Path) -> Iterator[tuple[SweepFolder, int, str]]:
    """A sweep whose server was killed while its trials ran: its folder, exit code and standard error."""
    folder = SweepFolder(workshop / "sweep")
    file = workshop / "sweep.yaml"
    tests = [{"cup": str(workshop / "held_out")}, {"cup": str(workshop / "late")}]  # the second is not there yet
    parameters = {"method": ["random"], "data.test": tests}
    content = {"run": str(folder), "config": str(workshop / "config.yaml"), "port": free_port(), "concurrency": 2}
    file.write_text(yaml.safe_dump({**content, "threads": 1, "trials": 2, "parameters": parameters}))
    thread = once(
        lambda: any(record.status == "running" for record in folder.records()),
        lambda: os.kill(int(folder.state()["server"][0]), signal.SIGKILL),
    )
    with (workshop / "stderr").open("w+") as stderr, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        code = ended(["start", str(file)])
        thread.join()
        stderr.seek(0)
        yield folder, code, stderr.read()


def of_sweep(folder: SweepFolder) -> list[psutil.Process]:
    """Processes of a sweep that still run: trials, their launchers, and NNI's."""
    found = []
    for process in psutil.process_iter(["cmdline", "pid"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(folder) in command and process.info["pid"] != os.getpid():
            found.append(process)
    return found


def test_when_the_server_is_killed_nothing_runs_on_and_the_sweep_says_how_it_goes_on(
    killed: tuple[SweepFolder, int, str],
) -> None:
    folder, code, said = killed
    assert code == 1 and "NNI's server has ended" in said and f"resume {folder}" in said
    gone, left = psutil.wait_procs(of_sweep(folder), timeout=10)
    assert not left
    assert {record.status for record in folder.records()} == {"waiting"}


def test_a_resumed_sweep_runs_every_trial_once_and_names_those_that_failed(
    killed: tuple[SweepFolder, int, str], workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, *_ = killed
    assert ended(["resume", str(folder)]) == 1
    said = capsys.readouterr().out
    records = folder.records()
    assert sorted(record.status for record in records) == ["done", "failed"]
    for record in records:
        run = RunFolder(folder.trials / record.name)
        assert (record.status == "done") == ("late" not in str(record.parameters)) == run.evaluation.is_file()
        if record.status == "done":
            assert record.figures["psnr"] > 0 and record.figures["bitops"] > 0 and record.ended > record.begun
        else:
            assert f"failed: {record.name}" in said and "late" in record.error
            assert str(folder.log(running.experiment_of(folder), record.job)) in said and "  | " in said
    jobs = {record.job for record in records}
    assert len(jobs) == 2 and not of_sweep(folder)
    environments = folder.nni / running.experiment_of(folder) / "environments"
    assert {path.name for path in environments.glob("*/trials/*")} == jobs  # in NNI's eyes too, each was one trial
    for record in records:
        link = next(environments.glob(f"*/trials/{record.job}/run"))
        assert link.resolve() == (folder.trials / record.name).resolve()

    # What was missing is there now, and the failed trials alone are run again.
    (workshop / "late").symlink_to(workshop / "held_out")
    begun = {record.name: record.begun for record in records if record.status == "done"}
    assert ended(["resume", str(folder), "--failed"]) == 0
    assert all(record.status == "done" for record in folder.records())
    assert all(folder.read(name).begun == before for name, before in begun.items())  # type: ignore[union-attr]
    assert not of_sweep(folder)


def test_a_sweep_is_shown_without_running_or_changing_anything(
    killed: tuple[SweepFolder, int, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, *_ = killed
    port = free_port()
    seen: dict[str, Any] = {}
    with folder.held(), running.shown(folder, folder.load(), port) as portal:
        assert portal.get("/check-status")["status"] == "VIEWED"
        seen = {job["trialJobId"]: job for job in portal.get("/trial-jobs")}
        token, portal._token = portal._token, "wrong"
        for method, path in (("POST", "/trial-jobs"), ("DELETE", "/experiment"), ("PUT", "/experiment")):
            with pytest.raises(PortalFailure, match="only shows"):
                portal.request(method, path, {})
        portal._token = token
        assert len(psutil.Process(portal.pid).children(recursive=True)) == 0
    assert not of_sweep(folder)
    done = [job for job in seen.values() if job["status"] == "SUCCEEDED"]
    assert len(done) == 2 and len(seen) == 3  # one of which failed before it was run again
    for job in done:
        figures = json.loads(json.loads(job["finalMetricData"][0]["data"]))
        assert {"default", "psnr", "ssim", "bitops", "bytes"} <= figures.keys() and figures["default"] == figures[
            "psnr"
        ]


@pytest.mark.parametrize(
    ("state", "sentence"), [({}, "no experiment was begun"), ({"experiment": "x"}, "'x' does not exist")]
)
def test_a_sweep_without_its_experiment_is_refused(state: dict[str, str], sentence: str, tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    folder.sweep.write_text("parameters: {seed: [0]}")
    folder.write_state(**state)
    for kind in ("resume", "view"):
        with pytest.raises(InputError, match=sentence):
            sweep.main([kind, str(folder)])
    assert not (tmp_path / "nni").exists()


def test_a_sweep_is_not_begun_where_something_is_or_in_public_without_a_yes(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["--set", f"config={workshop / 'config.yaml'}", "--set", "set=[]", "--set"]
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        sweep.main(["start", "sweep_demo", *sets, f"run={tmp_path / 'filled'}"])
    for answer in ("", "no"):
        monkeypatch.setattr("builtins.input", lambda text, answer=answer: answer)
        with pytest.raises(InputError, match="--public was not confirmed"):
            sweep.main(["start", "sweep_demo", *sets, f"run={tmp_path / 'new'}", "--public"])
    assert not (tmp_path / "new").exists()
