"""The floors of the package: a module imports from its own room and from those below, lazily too."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "quantnas_ext"
FLOORS = """
errors compat arguments notices files threads quantization nn distribution costs deriving supernet search conversion
spaces runs architecture genotype reporting sr sweeps
""".split()
"""Rooms and lone modules from the ground up, as docs/contributing.md draws them."""

PAGE = PACKAGE.parent / "docs" / "contributing.md"

# Rooms within rooms, each with what is below it in the same room.
INNER = {
    ("costs", "latency"): {"tracing", "dry_run", "cost", "goals"},
    ("quantization", "noise"): {"precision"},
    ("sr", "data"): set(),
    ("sr", "weights"): {"data"},
    ("sr", "training"): {"data", "weights"},
    ("sr", "evaluation"): {"data", "weights"},
}


def modules() -> Iterator[tuple[tuple[str, ...], Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield tuple(part for part in parts if part != "__init__"), path


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Every import of the package in a file, wherever it stands, as the parts of its dotted name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["quantnas_ext.?"]  # a relative import, which no one here uses
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "quantnas_ext")


def test_the_page_for_contributors_draws_these_floors() -> None:
    drawn = re.search(r"^```text\n.*?^-.*?\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert drawn and [line.split()[0] for line in drawn[1].splitlines()] == FLOORS[::-1]


def test_every_module_has_its_floor() -> None:
    assert {name[0] for name, _ in modules() if name} == set(FLOORS)


@pytest.mark.parametrize("room", FLOORS)
def test_no_import_goes_upward(room: str) -> None:
    upward = [
        f"{'.'.join(name)} imports {'.'.join(target)}"
        for name, path in modules()
        if name[:1] == (room,)
        for target in imported(path)
        if target and (target[0] not in FLOORS or FLOORS.index(target[0]) > FLOORS.index(room))
    ]
    assert not upward


@pytest.mark.parametrize("inner", INNER, ids=".".join)
def test_rooms_within_rooms_stand_in_order(inner: tuple[str, str]) -> None:
    strange = [
        f"{'.'.join(name)} imports {'.'.join(target)}"
        for name, path in modules()
        if name[:2] == inner
        for target in imported(path)
        if target[0] == inner[0] and len(target) > 1 and target[1] not in {inner[1], *INNER[inner]}
    ]
    assert not strange
