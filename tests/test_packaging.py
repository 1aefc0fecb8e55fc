"""What a user installs: a light import, a complete wheel, and pins that need no resolving."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def test_importing_the_package_prints_nothing_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import quantnas_ext\n"
        "new = sys.modules.keys() - before\n"
        "assert len(new) < 100, sorted(new)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this source tree is installed, without a network."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    clutter = shutil.ignore_patterns("__pycache__")
    for name in ("quantnas_ext", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=clutter)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--isolated", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "-w", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", *offline, "--target", folder / "site", wheel], check=True)
    return folder / "site"


def test_the_wheel_holds_every_module_and_configuration(installed: Path) -> None:
    kinds = (".py", ".pyi", ".yaml", ".html", ".css", ".js")

    def files(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in kinds}

    recipes = {f"recipes/{name}" for name in files(ROOT / "recipes")}
    assert files(installed / "quantnas_ext") == files(ROOT / "quantnas_ext") | recipes


def test_the_installed_wheel_finds_its_configurations(installed: Path, tmp_path: Path) -> None:
    code = (
        "from quantnas_ext.runs import config\n"
        "config.load_config('demo')\n"
        "print(config.__file__, config.shipped_configs()['demo'], sep='\\n')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert [installed in Path(line).parents for line in done.stdout.splitlines()] == [True, True]


def test_the_pins_are_complete_and_meet_every_requirement() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    installed = {canonicalize_name(distribution.name) for distribution in importlib.metadata.distributions()}
    if missing := pins.keys() - installed:
        pytest.skip(f"this environment was not made from the pins: {sorted(missing)} missing")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for name in pins:
        wanted += importlib.metadata.requires(name) or []
    # The one deliberate exchange: the same OpenCV without the libraries of a desktop.
    pins["opencv-python"] = pins["opencv-python-headless"]
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            version = pins.get(canonicalize_name(requirement.name))
            assert version and requirement.specifier.contains(version, prereleases=True), f"{requirement}: {version}"
