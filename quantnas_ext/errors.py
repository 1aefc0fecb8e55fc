"""The one exception that stands for bad input, and how its sentences show what a user gave."""

from __future__ import annotations

import contextlib
import difflib
import reprlib
from collections.abc import Iterable, Iterator

_LONGEST_TEXT = 100  # characters of a value in a message

_MOST_NAMES = 60  # known names in a message

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _LONGEST_TEXT


class InputError(ValueError):
    """What a user gave cannot be used.

    Its message is one sentence that names the input, says what is wrong with it and what would be right. Recipes print
    that sentence alone and exit with code 2 (``quantnas_ext.runs.command_line.run``), so it is raised before any long
    work begins and before anything is written.
    """


@contextlib.contextmanager
def about(what: str) -> Iterator[None]:
    """Put what an ``InputError`` is about in front of its sentence: ``with about("genotype file 'a.gen'"): ...``."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def printable(text: str) -> str:
    """A text in which line breaks, terminal escapes and the like are written out, as in ``\\n`` and ``\\x1b``."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def shown(value: object) -> str:
    """A value as it stands in a message: its ``repr``, shortened where it is long, always on one line."""
    try:
        return printable(_SHORT.repr(value))
    except ValueError:  # Python writes out no whole number of more than some thousand digits
        return f"a value of type {type(value).__name__} that is too long to show"


def unknown_name(kind: str, name: object, known: Iterable[object]) -> InputError:
    """The error for a name that is not among the known ones, with the nearest known name offered.

    Args:
        kind: what the name should be, as it reads after "unknown": ``"operation"``, ``"key"``, ``"model space"``.

    Returns:
        An ``InputError`` to raise: ``unknown operation 'conv3x3'; did you mean 'conv_3x3'? Known: conv_1x1, conv_3x3``.
        Long names are shortened, and what is not printable in them is written out.
    """
    names = [str(candidate) for candidate in known]
    by_lower_case = {candidate.lower(): candidate for candidate in names}
    text = name if isinstance(name, str) else shown(name)
    if len(text) > _LONGEST_TEXT:
        text = f"{text[: _LONGEST_TEXT - 20]}...{text[-17:]}"
    near = difflib.get_close_matches(text.lower(), by_lower_case, n=1, cutoff=0.6)
    question = f"did you mean '{by_lower_case[near[0]]}'? " if near else ""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    listing = f"Known: {', '.join(names[:_MOST_NAMES])}{more}" if names else "None are known here"
    return InputError(f"unknown {kind} '{printable(text)}'; {question}{listing}")
