"""How a recipe ends, and names in its sentences."""

from __future__ import annotations

import pytest

from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.runs.command_line import run


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
