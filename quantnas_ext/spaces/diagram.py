"""What a drawing of an architecture needs to know of its macro-structure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stage:
    """One stage of a network; stages follow one another.

    Attributes:
        title: what the stage is called.
        branches: labels of choice blocks, in a row within a branch; branches run in parallel on the same input and
            their outputs are summed.
        identity: whether the stage's input is added too.
        repeat: how many times the stage stands in a row with the same choices.
        entrance: labels of blocks in a row in front of several branches, which run on its output; the identity adds
            what comes before it.
        taps: labels of blocks beside the only branch: each reads the input of the branch's block of the same position,
            and its output joins the branch's at the end.
    """

    title: str
    branches: list[list[str]]
    identity: bool = False
    repeat: int = 1
    entrance: list[str] = field(default_factory=list)
    taps: list[str] = field(default_factory=list)

    @property
    def blocks(self) -> list[str]:
        """Labels of all its blocks."""
        return [*self.entrance, *(block for branch in self.branches for block in branch), *self.taps]
