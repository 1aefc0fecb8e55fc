"""The report on runs and sweeps: what it says of them, what stands beside it, and what it refuses."""

from __future__ import annotations

import base64
import csv
import dataclasses
import gzip
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import ARGUMENTS, photographs, searched, write_run, write_trial
from small_searches import tiny_space
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quantnas_ext.architecture import Architecture
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.reporting.report.beside import still_front
from quantnas_ext.reporting.report.contents import report_contents
from quantnas_ext.reporting.report.document import report_page
from quantnas_ext.reporting.report.front import Point, hull, method_styles, undominated
from quantnas_ext.reporting.report.layer_costs import layer_costs
from quantnas_ext.reporting.report.trials import read_trials
from recipes import report

BLOCKS = {f"block_{i}": ["fac_5x5", "fac_3x3", "conv_3x3", "conv_5x5"] for i in range(8)}
HOSTILE = "</script><script>alert('x')</script>"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return searched(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def sweep(found: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trials that are done, one of a hostile name, one that failed and one that waits."""
    folder = tmp_path_factory.mktemp("sweeps")
    images = photographs(folder / "images")
    for name, method, psnr, bits in (
        ("cheap", "quantization noise", 30.0, 4),
        (HOSTILE, "direct quantization", 31.0, 8),
        ("worse", "direct quantization", 29.5, 8),
    ):
        trial = write_trial(folder / "sweep", name, method=method, budget=2e7)
        write_run(trial, found, images, psnr=psnr, bits=bits)
    write_trial(folder / "sweep", "broken", "failed", error="Traceback <b>\nFloatingPointError: no number")
    write_trial(folder / "sweep", "later", "waiting")
    return folder / "sweep"


@pytest.fixture(scope="module")
def reported(sweep: Path) -> Path:
    report.main([str(sweep), "--images", "1"])
    return sweep / "report"


def payload(page: str) -> dict[str, Any]:
    """The data in a page."""
    packed = re.search(r'id="packed-data">([^<]*)<', page)
    assert packed
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


def test_the_page_asks_for_nothing_and_takes_no_text_for_markup(reported: Path) -> None:
    page = (reported / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in page and "&lt;/script&gt;&lt;script&gt;alert(" in page
    assert not re.search(r"""(?:src|href)=["']?(?!["']|data:|#)""", page)
    assert "default-src 'none'" in page and "unsafe-eval" not in page
    assert page.count("</script>") == page.count("<script") == 3


def test_every_figure_of_a_run_is_in_the_page_in_the_table_and_in_the_data(reported: Path, sweep: Path) -> None:
    content = payload((reported / "report.html").read_text(encoding="utf-8"))["content"]
    by_name = {trial["name"]: trial for trial in content["trials"]}
    assert by_name["broken"]["status"] == "failed" and "FloatingPointError" in by_name["broken"]["error"]
    cheap = by_name["cheap"]
    filed = Architecture.load(sweep / "trials" / "cheap" / "architecture.yaml")
    assert cheap["costs"] == filed.cost
    assert sum(layer["bitops"] for layer in cheap["layers"]) == filed.cost["bitops_32"]
    assert cheap["scores"]["small"]["ours"]["psnr"] == 30.0
    assert content["fronts"]["small"]["bitops_32"]["front"] == ["cheap", HOSTILE]
    rows = list(csv.DictReader((reported / "runs.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == [trial["name"] for trial in content["trials"]]
    assert rows[[row["name"] for row in rows].index("cheap")]["small ours psnr"] == "30.0"
    assert json.loads((reported / "report.json").read_text())["fronts"] == content["fronts"]
    drawn = np.asarray(Image.open(reported / "architectures" / "cheap.png").convert("L"))
    assert drawn.std() > 10 and (reported / "front.png").is_file()


def test_probabilities_and_crops_are_those_of_the_run(reported: Path, sweep: Path, found: dict[str, Any]) -> None:
    data = payload((reported / "report.html").read_text(encoding="utf-8"))
    cheap = next(trial for trial in data["content"]["trials"] if trial["name"] == "cheap")
    last = found["history"]["epochs"][-1]["probabilities"]
    head = next(block for block in cheap["distributions"] if block["block"] == "head_0")
    operation, bits = (head["candidates"][0][key] for key in ("operation", "bits"))
    values = found["history"]["labels"]["head_0"]["values"]
    expected = last["head_0"][values.index(operation)]
    expected *= last[f"head_0__{operation}__bits"][[4, 8].index(int(bits.split()[0]))]
    assert abs(head["thousandths"][0][-1] / 1000 - expected) < 1e-3
    (crop,) = cheap["crops"]
    pictures = {kind: _pixels(data["images"][crop[kind]]) for kind in ("lr", "bicubic", "ours", "hr")}
    assert pictures["hr"].shape == (96, 96, 3) and pictures["lr"].shape == (48, 48, 3)
    original = np.asarray(Image.open(sweep.parent / "images" / crop["image"]))
    windows = np.lib.stride_tricks.sliding_window_view(original, pictures["hr"].shape)
    assert (windows == pictures["hr"]).all(axis=(-3, -2, -1)).any()
    assert not np.array_equal(pictures["ours"], pictures["bicubic"])


def _pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_tensorboard_has_curves_pictures_and_hyper_parameters_of_every_run_that_ended(reported: Path) -> None:
    folders = sorted(path for path in (reported / "tensorboard").iterdir())
    assert len(folders) == 3
    board = EventAccumulator(str(next(path for path in folders if path.name == "cheap")))
    board.Reload()
    assert [event.step for event in board.Scalars("search/train_loss")] == [1, 2, 3]
    assert board.Scalars("psnr/small")[0].value == 30.0
    assert any(tag.startswith("images/") for tag in board.Tags()["images"]) and "architecture" in board.Tags()["images"]
    assert "_hparams_/session_start_info" in board.summary_metadata


def test_thirty_runs_of_the_size_of_the_demo_fit_into_three_megabytes(
    found: dict[str, Any], tmp_path: Path, history_maker: Callable[..., dict[str, Any]]
) -> None:
    write_run(tmp_path / "run", found, photographs(tmp_path / "images"))
    (trial,) = read_trials([tmp_path / "run"])
    random = np.random.default_rng(0)
    crop = {"image": "cat.png", "side": 96, "scale": 2, "psnr": {}, "lr": b"", "bicubic": b"", "hr": b""}
    trials, crops = [], {}
    for seed in range(30):
        name, history = f"run {seed}", history_maker(BLOCKS, seed=seed)
        trials.append(dataclasses.replace(trial, name=name, seed=seed, history=history))
        crops[name] = [{**crop, "ours": random.bytes(14_000)} for _ in range(3)]  # as lossless crops take
    content, _ = report_contents(trials, crops)
    for index, entry in enumerate(content["trials"]):
        entry["drawing"] = index
    _, still, text = still_front(content)
    drawings = [_noise(random) for _ in trials]
    page = report_page(content, drawings, still, text)
    assert len(page.encode()) < 3_000_000


def _noise(random: np.random.Generator) -> bytes:
    """A picture of 12 kB, as a drawing of the demo takes, that nothing makes smaller."""
    written = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (63, 63, 3), dtype=np.uint8)).save(written, "PNG")
    return written.getvalue()


def test_layers_of_an_architecture_are_those_of_its_network(found: dict[str, Any], independent_bitops: Any) -> None:
    space, shape = tiny_space(), (1, 3, 8, 8)
    layers = layer_costs(space, ChoiceTree.of(space), found["sample"], shape)
    network = Architecture.of("sr_basic", ARGUMENTS, found["sample"]).build()
    assert sum(layer.bitops for layer in layers) == independent_bitops(network, shape)
    assert abs(sum(layer.share for layer in layers) - 1) < 1e-12
    assert {layer.block for layer in layers} >= {"head_0", "body_0", "tail_0"}


def test_the_front_and_its_hull_are_those_of_the_definition() -> None:
    random = np.random.default_rng(1)
    points = [Point(str(i), "m", float(10**x), float(y)) for i, (x, y) in enumerate(random.uniform(6, 9, (60, 2)))]
    points.append(points[0])  # equal points do not dominate one another
    front = undominated(points)
    for point in points:
        better = [
            p
            for p in points
            if p.cost <= point.cost and p.psnr >= point.psnr and (p.cost, p.psnr) != (point.cost, point.psnr)
        ]
        assert (point in front) == (not better)
    corners = hull(points)
    assert {corners[0], corners[-1]} == {front[0], front[-1]} and set(corners) <= set(front)
    for point in front:  # none lies above the line between two corners
        heights = np.interp(np.log(point.cost), np.log([c.cost for c in corners]), [c.psnr for c in corners])
        assert point.psnr <= heights + 1e-9
    assert len(set(method_styles([str(i) for i in range(24)]).values())) == 24


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "does not exist"),
        (lambda folder: folder.write_text("x"), "is a file"),
        (lambda folder: folder.mkdir(), "neither a run folder"),
        (lambda folder: (folder / "trials").mkdir(parents=True), "has no trials"),
        (lambda folder: write_trial(folder, "a", "failed", error="out of memory"), r"1 failed\); .*out of memory"),
        (lambda folder: _file(folder / "config.yaml", "seed: 1"), "1 running"),
        (lambda folder: _file(folder / "config.yaml", "seed: ["), "config.yaml"),
        (lambda folder: _file(folder / "architecture.yaml", "a: 1"), "not an architecture file"),
    ],
)
def test_what_is_no_finished_run_is_refused_in_a_sentence(make: Any, words: str, tmp_path: Path) -> None:
    make(tmp_path / "given")
    with pytest.raises(InputError, match=words) as refusal:
        report.main([str(tmp_path / "given"), "--out", str(tmp_path / "out")])
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()


def _file(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)


def test_damaged_files_and_foreign_folders_are_refused(sweep: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(sweep / "trials" / "cheap", run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else than a report"):
        report.main([str(run), "--out", str(tmp_path / "mine")])
    (run / "history.json").write_text('{"labels": ')
    with pytest.raises(InputError, match="history.json' is not valid JSON"):
        read_trials([run])
    (broken, *others) = read_trials(
        [_sweep_of(run, sweep, tmp_path)]
    )  # a trial like that does not stop a sweep's report
    assert (broken.status, [one.status for one in others]) == ("failed", ["done"])


def _sweep_of(run: Path, sweep: Path, folder: Path) -> Path:
    (folder / "sweep" / "trials").mkdir(parents=True)
    shutil.move(run, folder / "sweep" / "trials" / "a")
    shutil.copytree(sweep / "trials" / "worse", folder / "sweep" / "trials" / "b")
    return folder / "sweep"


def test_no_code_that_a_run_names_is_run(found: dict[str, Any], tmp_path: Path) -> None:
    write_run(tmp_path / "run", found, photographs(tmp_path / "images"))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("plugins: []", f"plugins: ['{tmp_path / 'evil.py'}']"))
    report.main([str(tmp_path / "run"), "--images", "0"])
    assert "evil.py" in (tmp_path / "run" / "report" / "report.json").read_text()


def test_of_several_runs_those_that_cannot_be_used_are_shown_as_failed(
    found: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = photographs(tmp_path / "images")
    for name in ("good", "unknown_space", "odd_history", "no_weights"):
        write_run(write_trial(tmp_path / "sweep", name), found, images)
    trials = tmp_path / "sweep" / "trials"
    for file in (trials / "unknown_space").rglob("architecture.yaml"):
        file.write_text(file.read_text().replace("name: sr_basic", "name: not_registered"))
    history = json.loads((trials / "odd_history" / "history.json").read_text())
    history["epochs"][1]["train_loss"] = "low"
    (trials / "odd_history" / "history.json").write_text(json.dumps(history))
    (trials / "no_weights" / "train" / "network.safetensors").write_bytes(b"no tensors")
    report.main([str(tmp_path / "sweep"), "--images", "1"])
    told = json.loads((tmp_path / "sweep" / "report" / "report.json").read_text())["trials"]
    said = {trial["name"]: (trial["status"], trial["error"]) for trial in told}
    assert said["good"][0] == said["no_weights"][0] == "done" and said["unknown_space"][0] == "failed"
    assert "not_registered" in said["unknown_space"][1] and "odd_history' cannot be used" in said["odd_history"][1]
    assert "no crops of run 'no_weights'" in capsys.readouterr().err
    with pytest.raises(InputError, match="unknown space 'not_registered'"):
        report.main([str(trials / "unknown_space")])


def test_the_second_of_two_searches_stands_for_both(found: dict[str, Any], tmp_path: Path) -> None:
    write_run(tmp_path / "run" / "precisions", found, photographs(tmp_path / "images"), psnr=30.5)
    shutil.copy(tmp_path / "run" / "precisions" / "config.yaml", tmp_path / "run")
    (trial,) = read_trials([tmp_path / "run"])
    assert (trial.name, trial.status) == ("run", "done") and trial.weights is not None and trial.history is not None
    assert trial.scores["small"]["ours"]["psnr"] == 30.5


def test_the_papers_points_are_shown_on_set14_at_x4_alone(found: dict[str, Any], tmp_path: Path) -> None:
    write_run(tmp_path / "run", found, photographs(tmp_path / "images"), data_set="Set14")
    (trial,) = read_trials([tmp_path / "run"])
    assert not report_contents([trial], {})[0]["paper"]
    config = json.loads(json.dumps(trial.config))
    config["space"]["arguments"]["scale"] = 4
    paper = report_contents([dataclasses.replace(trial, config=config)], {})[0]["paper"]
    assert (paper["dataset"], paper["cost"]) == ("Set14", "bitops_32")
    assert {"bitops": 1.93e9, "psnr": 27.63, "method": "paper, noise + ADQ"} in paper["points"]
