"""Configurations as people write them: dates as names, Windows files, tildes, numbers that YAML reads otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantnas_ext.errors import InputError
from quantnas_ext.files.paths import named_folder_argument, path_argument
from quantnas_ext.runs.config import load_config, save_config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("run: 2024-05-01", "'run' must be text, not the date 2024-05-01; put it in quotes: '2024-05-01'"),
        ("run: 2024-05-01 12:30:00", "not the date 2024-05-01 12:30:00; put it in quotes"),
        ("run: 1_000", "'run' must be text, not 1_000, which YAML reads as 1000; put it in quotes: '1_000'"),
        ("run: 007", "'run' must be text, not 007, which YAML reads as 7; put it in quotes: '007'"),
        ("run: 1:30", "'run' must be text, not 1:30, which YAML reads as 90; put it in quotes"),
        ("run: on", "'run' must be text, not on, which YAML reads as true; put it in quotes: 'on'"),
        ("run: 1.10", "'run' must be text, not 1.10, which YAML reads as 1.1; put it in quotes: '1.10'"),
        ("run:", "'run' must be text, not None (an empty value"),
        ("run: ''", "'run': an empty path names nothing"),
        ("run: ~nobody-of-this-name/run", "begins with an unknown home folder; write './~nobody-of-this-name/run'"),
        ("data: {test: {2024: a}}", "'a key of data.test' must be text, not 2024; put it in quotes: '2024'"),
        ("data: {photographs: 2024-05-01}", "'data.photographs' must be text or null, not the date 2024-05-01"),
        ("data: {train: [2024-05-01]}", "'data.train[0]' must be text, not the date 2024-05-01"),
        ("seed: 010", "'seed' is written 010, which YAML reads as 8; write 8"),
        ("search: {steps_per_epoch: 1:30}", "'search.steps_per_epoch' is written 1:30, which YAML reads as 90"),
        ("search: {entropy: 1:30.5}", "'search.entropy' is written 1:30.5, which YAML reads as 90.5"),
        ("space: {arguments: {bits: [04, 010]}}", "'space.arguments.bits[0]' is written 04, which YAML reads as 4"),
        ("seed: 2024-05-01", "'seed' must be a whole number, not the date 2024-05-01"),
        ("search: {epochs: 1e3}", "'search.epochs' must be a whole number, not '1e3'"),
        ("search:\n\tepochs: 3", "line 2: a tab stands where only spaces may"),
        ("yes: 1", "unknown key 'yes'"),
        ("2024: 1", "unknown key '2024'"),
        ("search: {'epochs ': 3}", "did you mean 'search.epochs'"),
    ],
)
def test_what_yaml_reads_otherwise_than_it_was_meant_is_refused_with_what_to_write(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(tmp_path / "my.yaml")
    assert sentence in str(caught.value) and "my.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_date_behind_set_is_refused_like_one_in_a_file_and_quotes_help() -> None:
    with pytest.raises(InputError, match=r"--set run=2024-05-01': 'run' must be text, not the date 2024-05-01"):
        load_config(None, ["run=2024-05-01"])
    config = load_config(None, ["run='2024-05-01'", "data.test={'2024': photos}", "data.train=[2024-13-45]"])
    assert (config.run, config.data.test, config.data.train) == ("2024-05-01", {"2024": "photos"}, ["2024-13-45"])


def test_words_and_numbers_that_yaml_reads_as_they_were_meant_stay_allowed(tmp_path: Path) -> None:
    text = "search: {masked_noise: yes, mixed_precision: no, weight_learning_rate: 1e-3}\nseed: 1_000\ntrain:\n"
    (tmp_path / "my.yaml").write_text(text)
    config = load_config(tmp_path / "my.yaml")
    assert config.search.masked_noise is True and config.search.mixed_precision == "no"
    assert (config.search.weight_learning_rate, config.seed, config.train.iterations) == (1e-3, 1000, 1000)
    assert load_config(None, ["train.precision=8"]).train.precision == 8
    save_config(load_config(None, ["run='007'", "data.test={'on': a}"]), tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml").run == "007"


def test_a_file_from_windows_loads_and_other_encodings_and_sizes_are_named(tmp_path: Path) -> None:
    (tmp_path / "notepad.yaml").write_bytes("seed: 5\r\nrun: C:\\läufe\r\n".encode("utf-8-sig"))
    config = load_config(tmp_path / "notepad.yaml")
    assert (config.seed, config.run) == (5, "C:\\läufe")
    for name, content in {
        "latin.yaml": "run: läufe".encode("latin-1"),
        "utf16.yaml": "seed: 5".encode("utf-16"),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}': not a text file in UTF-8; save it in that encoding"):
            load_config(tmp_path / name)
    with (tmp_path / "huge.yaml").open("wb") as huge:
        huge.truncate(10**12)  # a sparse file: reading it would take all memory
    with pytest.raises(InputError, match=r"huge.yaml': larger than 1 MB"):
        load_config(tmp_path / "huge.yaml")


def test_a_tilde_is_the_home_folder_and_makes_no_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.yaml").write_text("run: ~/runs/a\ndata: {photographs: ~/photos, train: [~/a, b], test: {c: ~/c}}\n")
    config = load_config("~/my.yaml", ["search.operations=~/o.yaml", "search.latency_table=~/t.json"])
    home = str(tmp_path)
    assert config.run == f"{home}/runs/a" and config.data.photographs == f"{home}/photos"
    assert config.data.train == [f"{home}/a", "b"] and config.data.test == {"c": f"{home}/c"}
    assert (config.search.operations, config.search.latency_table) == (f"{home}/o.yaml", f"{home}/t.json")
    assert load_config(None, ["run=~/x"]).run == f"{home}/x"
    assert load_config(None, ["run=./~x"]).run == "./~x"
    assert path_argument("~/out") == f"{home}/out" and named_folder_argument("Set5=~/d") == f"Set5={home}/d"


def test_a_relative_path_that_is_not_there_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantnas_ext.architecture import Architecture
    from quantnas_ext.sr.data.dataset_layout import dataset_pairs
    from quantnas_ext.sr.data.images import list_images, read_image
    from quantnas_ext.sr.evaluation.score_files import check_new_file
    from quantnas_ext.sr.weights.weight_files import read_weight_file

    monkeypatch.chdir(tmp_path)
    looks = [
        lambda: load_config("data/my.yaml"),
        lambda: Architecture.load("data/a.yaml"),
        lambda: len(dataset_pairs("data/mine", 2)),
        lambda: list_images("data"),
        lambda: read_image("data/a.png"),
        lambda: check_new_file("data/a.json"),
        lambda: read_weight_file("data/w.safetensors").weights,
    ]
    for look in looks:
        with pytest.raises(InputError) as caught:
            look()
        assert f"(relative to the working directory '{tmp_path}')" in str(caught.value)
    with pytest.raises(InputError) as caught:
        len(dataset_pairs(tmp_path / "data", 2))
    assert "working directory" not in str(caught.value)
