"""The documentation is true: its code runs, its commands and configurations parse, its links lead somewhere."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantnas_ext.runs.config import Config, load_config, shipped_configs
from quantnas_ext.spaces import SPACES, build_space
from quantnas_ext.sr import train as sr_train
from quantnas_ext.sr.training import basicsr_options
from recipes import baseline, demo, evaluate, import_genotype, measure_latency, prepare_data, search, train, upscale

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAINS: dict[str, Callable[[list[str]], None]] = {
    f"recipes/{module.__name__.rpartition('.')[2]}.py": module.main
    for module in (baseline, demo, evaluate, import_genotype, measure_latency, prepare_data, search, train, upscale)
} | {"quantnas_ext.recipes.search": search.main, "quantnas_ext.sr.train": sr_train.main}


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Fenced blocks of a language: the number of the line before the code, and the code."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start(1)), match[1]


def commands() -> list[str]:
    """Every line that starts one of this project's programs, in shell blocks and in running text."""
    lines = []
    for page in PAGES:
        for _, block in blocks(page, "sh"):
            lines += [
                line for line in block.replace("\\\n", " ").splitlines() if program(shlex.split(line)) is not None
            ]
        lines += re.findall(
            r"`((?:python|accelerate) [^`\n]*(?:recipes|quantnas_ext)[^`\n]*)`", page.read_text("utf-8")
        )
    return lines


def program(words: list[str]) -> int | None:
    """Where the program's name stands in a command, if it is one of this project's."""
    return next((index for index, word in enumerate(words) if "recipes" in word or "quantnas_ext" in word), None)


def with_code() -> list[Path]:
    return [page for page in PAGES if any(blocks(page, "python"))]


@pytest.mark.parametrize("page", with_code(), ids=lambda page: page.name)
def test_the_code_of_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    lines = [""] * len(page.read_text(encoding="utf-8").splitlines())
    for start, code in blocks(page, "python"):
        lines[start : start + code.count("\n")] = code.splitlines()
    script = tmp_path / f"{page.stem}.py"  # the lines stand where they stand on the page, so a traceback finds them
    script.write_text("\n".join(lines), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("command", commands())
def test_a_command_has_arguments_that_its_program_takes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Parsed(Exception):
        """Ends a program as soon as its arguments are read."""

    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> Any:
        raise Parsed(parse(parser, argv))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    words = shlex.split(command)
    place = program(words)
    assert place is not None and words[place] in MAINS, "no such program"
    with pytest.raises(Parsed) as parsed:
        MAINS[words[place]](words[place + 1 :])
    arguments = parsed.value.args[0]
    if hasattr(arguments, "overrides"):
        load_config(arguments.config if arguments.config in shipped_configs() else None, arguments.overrides)


def test_overrides_of_the_final_training_name_its_options() -> None:
    written = basicsr_options.final_training_options(load_config("demo"), 2, 1, "architecture.yaml", None)
    overrides = [text for command in commands() for text in re.findall(r"--force_yml (\S+)", command)]
    assert overrides
    for override in overrides:
        *sections, name = override.partition("=")[0].split(":")
        found: Any = written
        for section in sections:
            found = found[section]
        assert name in found, override


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_configuration_on_a_page_loads_and_its_space_can_be_built(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_costs.py").touch()  # whose class is on the page above; a plugin that registers one has tests of its own
    for number, (_, block) in enumerate(blocks(page, "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        config = load_config(file)
        build_space(config.space.name, config.space.arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_pictures_and_named_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("https://"):
            file, _, heading = target.partition("#")
            linked = (page.parent / file).resolve() if file else page
            assert linked.is_file(), target
            assert not heading or heading in headings(linked), target
    for named in re.findall(r"`((?:quantnas_ext|recipes|tests|docs|benchmarks)/[^`\s]*)`", text):
        assert (ROOT / named).exists(), named
    for module in re.findall(r"`((?:\w+/)+\w+\.py)`", text):  # from the top, or within the package
        assert (ROOT / module).is_file() or (ROOT / "quantnas_ext" / module).is_file(), module


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings have on GitHub."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def documented(start: str, end: str) -> dict[str, Any]:
    """First column of the tables between two headings of the page on configuration, with the second one's values."""
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    part = text[text.index(start) : text.index(end)]
    return {
        key: yaml.safe_load(value) for key, value in re.findall(r"^\| `([\w.]+)` \| `(.+?)` \|", part, re.MULTILINE)
    }


def keys(section: Any, prefix: str = "") -> dict[str, Any]:
    """Every key of a configuration with its value."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        name = f"{prefix}{field.name}"
        value = list(value) if isinstance(value, tuple) else value
        found |= keys(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value}
    return found


def test_the_page_on_configuration_has_every_key_with_its_default() -> None:
    assert documented("#", "## Arguments of sr_basic") == keys(Config())


@pytest.mark.parametrize(("space", "end"), [("sr_basic", "## Arguments of sr_rfdn"), ("sr_rfdn", "## Operations")])
def test_the_page_on_configuration_has_every_argument_of_a_space_with_its_default(space: str, end: str) -> None:
    parameters = inspect.signature(SPACES[space]._init_wrapped).parameters.values()
    arguments = {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in parameters}
    del arguments["self"]
    assert documented(f"## Arguments of {space}", end) == arguments


def test_the_readme_shows_pictures_that_are_small_enough_for_a_front_page() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "docs/images/demo_comparison.jpg" in pictures
    assert all((ROOT / picture).stat().st_size < 700_000 for picture in pictures)
