"""The one exception that stands for bad input, and the sentence for a name that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "unknown_name"]


class InputError(ValueError):
    """What a user gave cannot be used.

    Its message is one sentence that names the input, says what is wrong with it and what would be right. Recipes print
    that sentence alone and exit with code 2 (`quantnas_ext.cli.run`), so it is raised before any long work begins and
    before anything is written.
    """


def unknown_name(kind: str, name: object, known: Iterable[object]) -> InputError:
    """The error for a name that is not among the known ones, with the nearest known name offered.

    Args:
        kind: What the name should be, as it reads after "unknown": `"operation"`, `"key"`, `"model space"`.
        name: What the user wrote.
        known: The names that would be right, in the order in which they are listed.

    Returns:
        An `InputError` to raise: `unknown operation 'conv3x3'; did you mean 'conv_3x3'? Known: conv_1x1, conv_3x3`.
        Without a near name the question is left out.
    """
    names = [str(candidate) for candidate in known]
    by_lower_case = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.6)
    question = f"did you mean '{by_lower_case[near[0]]}'? " if near else ""
    listing = f"Known: {', '.join(names)}" if names else "None are known here"
    return InputError(f"unknown {kind} '{name}'; {question}{listing}")
