"""What lies where in a run folder, in what state a run is, and which folders a run may use."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from quantnas_ext.errors import InputError
from quantnas_ext.runs.config import Config, DataConfig, SearchConfig, load_config
from quantnas_ext.runs.run_folder import RunFolder, TrainingFolder
from quantnas_ext.runs.run_identity import begun_search

ROOT = Path(__file__).parents[2]


def test_a_run_folder_is_new_or_resumed_but_never_mixed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "a")
    run.check()
    assert not run.path.parent.exists()  # a check leaves nothing behind
    assert run.make() == run.path and run.make().is_dir()
    with pytest.raises(InputError, match="nothing to resume"):
        run.make(resume=True)
    run.config.write_text("seed: 0\n")
    with pytest.raises(InputError, match="already holds a run; name another folder"):
        run.make()
    assert run.make(resume=True) == run.path
    with pytest.raises(InputError, match="is a file"):
        RunFolder(run.config).make()
    with pytest.raises(InputError, match="cannot be made"):
        RunFolder(run.config / "below").make()
    for impossible in ("a" * 5000, "a\0b"):
        with pytest.raises(InputError, match="name another folder"):
            RunFolder(tmp_path / impossible).make()


def test_a_search_is_new_begun_or_found_and_its_refusal_says_how_it_goes_on(tmp_path: Path) -> None:
    kept = tmp_path / "kept.yaml"
    kept.write_text("an architecture")
    config = Config(run=str(tmp_path / "run"), search=SearchConfig(operations=str(kept)))
    run = RunFolder(config.run)
    assert run.state == "new" and not run.holds_search
    with begun_search(config, resume=False) as held:
        assert held.path == run.path and run.state == "begun"
        assert load_config(run.config) == config and run.operations.read_text() == "an architecture"
    with pytest.raises(InputError, match="already holds a run; .* delete this one first$"):
        run.check()
    run.history.touch()
    with pytest.raises(InputError, match="delete this one first; a search goes on with --resume$"):
        run.check()
    moved, changed = tmp_path / "moved.yaml", tmp_path / "changed.yaml"
    kept.rename(moved)
    changed.write_text("another one")
    other = dataclasses.replace(config, search=SearchConfig(epochs=3, operations=str(changed)))
    with pytest.raises(InputError, match="'search.epochs' is 20 there and 3 here; 'search.operations' is "):
        with begun_search(other, resume=True):
            pass
    search = SearchConfig(operations=str(moved), threads=1)
    same = dataclasses.replace(config, data=DataConfig(workers=1), search=search)
    with begun_search(same, resume=True):
        assert load_config(run.config) == same
    run.architecture.touch()
    assert run.state == "found" and run.going_on == ""


def test_a_training_is_new_begun_or_trained_and_what_never_began_is_cleared(tmp_path: Path) -> None:
    training = RunFolder(tmp_path).training("quantized")
    training.clear()
    with training.held():
        training.config.touch()
        training.initial.touch()
    assert training.state == "new" and training.going_on == ""
    training.clear()
    training.check()
    with training.held():
        training.options.touch()
    assert training.state == "begun"
    training.clear()
    with pytest.raises(InputError, match="quantnas_ext.sr.train -opt .*quantized/options.yml --auto_resume$"):
        training.check()
    training.weights.touch()
    assert training.state == "trained"


def test_no_file_of_a_run_is_named_anywhere_else() -> None:
    run, training = RunFolder(""), TrainingFolder("")
    paths = [path for folder in (run, training) for path in vars(folder).values()]
    names = {path.name for path in paths} - {
        "",
        run.nni.name,
    }  # NNI is named for itself
    assert {"config.yaml", "architecture.yaml", "search.ckpt", "history.json", "options.yml", "plots"} <= names
    elsewhere = {
        (str(file.relative_to(ROOT)), node.value)
        for folder in ("quantnas_ext", "recipes")
        for file in (ROOT / folder).rglob("*.py")
        if file.name != "run_folder.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert not elsewhere
