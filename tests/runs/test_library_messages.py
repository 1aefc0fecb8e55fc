"""What NNI and Lightning log during a run goes to a file of the run folder, and one line says so."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import pytest

from quantnas_ext.runs.library_messages import MESSAGES_NAME, keep_messages


def test_messages_go_to_a_file_and_only_errors_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nni = logging.getLogger("nni")
    printing = logging.StreamHandler(printed := io.StringIO())
    nni.addHandler(printing)
    level = nni.level
    nni.setLevel(logging.INFO)  # as NNI does
    try:
        with keep_messages(tmp_path):
            assert not list(tmp_path.iterdir()), "nothing was said yet"
            logging.getLogger("nni.nas.experiment").info("Experiment initialized successfully")
            logging.getLogger("pytorch_lightning.utilities.rank_zero").warning("a tip")
            warnings.warn("a warning", UserWarning, stacklevel=1)
            logging.getLogger("nni").error("the trial has failed")
        logging.getLogger("nni.nas").warning("after the run")
    finally:
        nni.removeHandler(printing)
        nni.setLevel(level)
    file = tmp_path / MESSAGES_NAME
    kept = file.read_text(encoding="utf-8").splitlines()
    said = [line.rpartition(": ")[2] for line in kept if line.startswith("20")]
    assert said == ["Experiment initialized successfully", "a tip", "a warning", "the trial has failed"]
    assert printed.getvalue() == "after the run\n"
    assert capsys.readouterr().err == (
        f"note: messages of NNI and other libraries are kept in '{file}'\nnote: nni: the trial has failed\n"
    )
