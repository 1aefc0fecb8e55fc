"""NNI's portal of a sweep in a real browser: what it shows of trials, epochs and parameters."""

from __future__ import annotations

import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quantnas_ext.sweeps.checking import check_sweep
from quantnas_ext.sweeps.experiment import experiment_config
from quantnas_ext.sweeps.portal import Portal
from quantnas_ext.sweeps.sweep_file import SweepConfig
from quantnas_ext.sweeps.sweep_folder import SweepFolder

# What a trial tells NNI, by the code of a real one, without the minutes in between.
TRIAL = """
import sys
from pathlib import Path
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.sweeps.reporting import EpochReports, TrialChannel

channel = TrialChannel()
print("run folder of", channel.parameters, file=sys.stderr)
reports = EpochReports(Path(sys.argv[1]), lambda record, figures: channel.intermediate(figures, 0))
reports._kept = {}
budget = channel.parameters["search.bitops_budget"]
for epoch in range(1, 6):
    loss = 1 / epoch
    probabilities = {"head_0": [0.5 + epoch / 20, 0.5 - epoch / 20]}
    record = EpochRecord(epoch, epoch, probabilities, loss, loss, None, {"bitops": budget}, {"bitops": loss}, loss, 0.1)
    reports(record, lambda: 20 + epoch + budget / 1e9)
figures = {"psnr": 30 + budget / 1e9, "ssim": 0.9, "bitops": budget, "bytes": 4e4}
figures |= {"entropy": 0.2, "least_decided": 0.75}
channel.final({"default": figures["psnr"], **figures})
"""


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """The portal of a sweep of four trials that are done."""
    folder = SweepFolder(tmp_path_factory.mktemp("portal") / "sweep")
    script = folder.path.parent / "trial.py"
    script.write_text(TRIAL)
    sweep = SweepConfig(parameters={"method": ["noise", "direct"], "seed": [0], "search.bitops_budget": [1.5e9, 4e9]})
    for record in check_sweep(sweep, folder):
        folder.write(record)
    config = experiment_config(sweep, folder, 2)
    command = shlex.join([sys.executable, str(script), str(folder.path)])
    config["trialCommand"] = config["trainingService"]["trialCommand"] = command
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    portal = Portal(folder.nni, "shown001", port, "create")
    portal.start()
    try:
        portal.request("POST", "/experiment", config)
        until = time.monotonic() + 240
        while time.monotonic() < until:
            portal.check()
            ended = [job["status"] for job in portal.get("/trial-jobs") if job["status"] not in ("WAITING", "RUNNING")]
            if len(ended) == 4:
                break
            time.sleep(0.2)
        assert ended == ["SUCCEEDED"] * 4
        yield portal
    finally:
        portal.stop()


@pytest.fixture
def page(chromium: Any, portal: Portal) -> Iterator[Any]:
    """A window whose errors fail the test; NNI's own icons and fonts, which come from elsewhere, may be missing."""
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "response", lambda answer: complaints.append(f"{answer.status} {answer.url}") if answer.status > 400 else None
    )
    yield page
    context.close()
    assert not complaints


def open_detail(page: Any, portal: Portal, tab: str) -> None:
    page.goto(f"{portal.url}/detail")
    page.get_by_text(tab, exact=True).first.click()
    page.wait_for_selector("canvas")
    page.wait_for_timeout(500)  # charts are drawn in steps


def drawn(page: Any, folder: Path) -> int:
    """How many colours the first chart of a page has."""
    picture = folder / "chart.png"
    page.locator("canvas").first.screenshot(path=picture)
    return len(np.unique(np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3), axis=0))


def test_the_overview_shows_the_sweep_its_best_figure_and_its_trials(page: Any, portal: Portal) -> None:
    page.goto(f"{portal.url}/oview")
    page.wait_for_selector("canvas")
    text = page.inner_text("body")
    assert "shown001" in text and "34.0" in text and "quantnas_ext.sweeps.tuner.PlannedTrials" in text
    assert str(portal.folder / "shown001") in text  # where its logs lie


def test_a_trial_has_its_parameters_its_log_and_every_figure(page: Any, portal: Portal) -> None:
    open_detail(page, portal, "Default metric")
    assert page.get_by_role("row").count() >= 5
    page.get_by_text("Add/Remove columns").click()
    listed = page.inner_text("body")
    for name in ("bitops", "bytes", "entropy", "least_decided", "psnr", "ssim", "method", "seed"):
        assert name in listed, name
    job = portal.get("/trial-jobs")[0]["trialJobId"]
    page.goto(f"{portal.url}/api/v1/nni/trial-file/{job}/stderr")
    assert "run folder of" in page.inner_text("body")


def test_the_epochs_of_every_trial_are_curves_of_any_figure(page: Any, portal: Portal, tmp_path: Path) -> None:
    open_detail(page, portal, "Intermediate result")
    assert drawn(page, tmp_path) > 20
    page.locator("button[title=Intermediate]").first.click()  # of one trial, by any key
    page.locator("[role=dialog] .ms-Dropdown, .ms-Modal .ms-Dropdown, .ms-Panel .ms-Dropdown").first.click()
    page.wait_for_selector("[role=option]")
    options = page.locator("[role=option]").all_inner_texts()
    wanted = {"default", "expected_bitops", "entropy", "least_decided", "train_loss", "multiplier_bitops"}
    assert wanted <= {option.strip() for option in options}


def test_the_page_on_parameters_plots_budgets_seeds_and_methods_beside_all_figures(page: Any, portal: Portal) -> None:
    page.goto(f"{portal.url}/detail")
    page.get_by_text("Hyper-parameter", exact=True).first.click()
    page.wait_for_selector(".parcoords svg, #parcoords svg, svg")
    axes = page.locator("svg").first.text_content()
    for name in ("method", "seed", "search.bitops_budget", "noise", "direct", "psnr", "bitops", "least_decided"):
        assert name in axes, name
