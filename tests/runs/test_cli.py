"""How a recipe ends, and which folders a run may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.runs.command_line import new_run_folder, run


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (None, 0, ""),
        (InputError("'x' is wrong; write 'y'"), 2, "error: 'x' is wrong; write 'y'\n"),
        (InputError("'x\n\x1b[31m' is wrong"), 2, "error: 'x\\n\\x1b[31m' is wrong\n"),
        (FloatingPointError("the search diverged"), 1, "error: the search diverged\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_bad_input_and_interruption_end_with_their_code_and_one_sentence(raised, code, said, capsys) -> None:
    def main(arguments: list[str] | None) -> None:
        if raised:
            raise raised

    with pytest.raises(SystemExit) as ended:
        run(main)
    printed = capsys.readouterr()
    assert ended.value.code == code
    assert printed.err.startswith(said) and printed.err.count("\n") == bool(raised)
    assert printed.out == ""


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    def main(arguments: list[str] | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_a_run_folder_is_new_or_resumed_but_never_mixed(tmp_path: Path) -> None:
    folder = new_run_folder(tmp_path / "runs" / "a")
    assert new_run_folder(folder).is_dir()
    with pytest.raises(InputError, match="nothing to resume"):
        new_run_folder(folder, resume=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(InputError, match="already holds a run; name another folder"):
        new_run_folder(folder)
    assert new_run_folder(folder, resume=True) == folder
    with pytest.raises(InputError, match="is a file"):
        new_run_folder(folder / "config.yaml")
    with pytest.raises(InputError, match="cannot be made"):
        new_run_folder(folder / "config.yaml" / "below")
    for impossible in ("a" * 5000, "a\0b"):
        with pytest.raises(InputError, match="name another folder"):
            new_run_folder(tmp_path / impossible)


def test_an_unknown_name_offers_the_nearest_known_one_or_none() -> None:
    known = ["conv_3x3", "CONV_5x5", "skip"]
    assert str(unknown_name("operation", "conv3x3", known)) == (
        "unknown operation 'conv3x3'; did you mean 'conv_3x3'? Known: conv_3x3, CONV_5x5, skip"
    )
    assert "did you mean 'CONV_5x5'?" in str(unknown_name("operation", "conv_5x5", known))
    assert "did you mean" not in str(unknown_name("operation", "zzz", known))


def test_an_unknown_name_reaches_the_terminal_short_and_without_control_characters() -> None:
    message = str(unknown_name("key", "seed\r\x1b]0;title\x07\n" + "ü" * 10_000, ["seed"]))
    assert message.isprintable() and "ü" in message and len(message) < 300
    assert str(unknown_name("value", 16**9999, [4])).isprintable()
    assert str(unknown_name("value", "zzz", range(1000))).endswith(", 59 and 940 more")
