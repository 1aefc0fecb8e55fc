"""`--help` and refusals come before anything heavy is loaded: seconds are held by what is imported, not by a clock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"basicsr", "cv2", "joblib", "matplotlib", "nni", "pytorch_lightning", "scipy", "skimage", "timm", "torch"}
REFUSED = {
    "search": [["--set", "search.epoks=3"], ["--config", "absent.yaml"], ["--set", "train.precision=1"]],
    "baseline": [["darts", "--set", "search.epochs=many"], ["uniform", "--architecture", "a.yaml", "--precision", "8"]],
    "demo": [["--set", "data.test=[a]"], ["--set", "data.test={a: b, c: d}"], ["--set", "seed=x"]],
    "train": [["--architecture", "a.yaml", "--set", "train.iterations=0"]],
    "evaluate": [
        ["--architecture", "a.yaml", "--weights", "w", "--data", "nameless"],
        ["--architecture", "absent.yaml", "--weights", "w", "--data", "a=images"],
    ],
    "upscale": [
        ["--architecture", "a.yaml", "--weights", "w", "--out", "out", "--tile", "3", "images"],
        ["--architecture", "absent.yaml", "--weights", "w", "--out", "out", "images"],
    ],
    "prepare_data": [["no_such_folder", "data"], ["images", "data", "--scale", "7"]],
    "measure_latency": [["--output", "no_such_folder/latency.json"], ["--output", "table.json", "--side", "0"]],
    "report": [["absent"], ["absent", "--images", "-1"]],
    "sweep": [
        ["start", "no_such_sweep"],
        ["start", "absent.yaml"],
        ["start", "sweep_demo", "--set", "concurency=2"],
        ["start", "sweep_demo", "--set", "parameters={method: []}"],
        ["start", "sweep_demo", "--set", "parameters={method: [nose]}"],
        ["start", "sweep_demo", "--set", f"parameters={{seed: {list(range(1001))}}}"],
        ["start", "sweep_demo", "--set", "parameters={search.epoks: [3]}"],
        ["start", "sweep_demo", "--port", "80"],
        ["resume", "absent"],
        ["view", "absent"],
        ["stop", "absent"],
    ],
    "import_genotype": [["absent.gen", "--space", "sr_basic", "--output", "a.yaml"]],
}
"""What each recipe is given and refuses."""

CODE = f"""
import atexit, runpy, sys
atexit.register(lambda: print(sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def ended(recipe: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A recipe that has run; the last line of its standard error lists the heavy modules that it has loaded."""
    command = [sys.executable, "-c", CODE, str(ROOT / "recipes" / f"{recipe}.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_every_recipe_is_here() -> None:
    assert REFUSED.keys() == {path.stem for path in (ROOT / "recipes").glob("*.py")}


@pytest.mark.parametrize("recipe", REFUSED)
def test_help_loads_nothing_heavy(recipe: str, tmp_path: Path) -> None:
    done = ended(recipe, ["--help"], tmp_path)
    assert done.returncode == 0 and "usage: " in done.stdout, done.stderr
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("recipe", "arguments"), [(recipe, arguments) for recipe, cases in REFUSED.items() for arguments in cases]
)
def test_a_refusal_is_one_sentence_before_anything_heavy_is_loaded(
    recipe: str, arguments: list[str], tmp_path: Path
) -> None:
    done = ended(recipe, arguments, tmp_path)
    assert done.returncode == 2, done.stderr
    *_, sentence, loaded = done.stderr.splitlines()
    assert "error: " in sentence
    assert loaded == "[]"
    assert not list(tmp_path.iterdir())
