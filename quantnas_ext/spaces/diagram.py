"""What a drawing of an architecture needs to know of its macro-structure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage of a network; stages follow one another.

    Attributes:
        title: what the stage is called.
        branches: labels of choice blocks, in a row within a branch; branches run in parallel on the same input and
            their outputs are summed.
        identity: whether the stage's input is added too.
        repeat: how many times the stage stands in a row with the same choices.
    """

    title: str
    branches: list[list[str]]
    identity: bool = False
    repeat: int = 1
