"""The ways to decide the blocks of a space, so arranged that every architecture is counted once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

from quantnas_ext.distribution.choices import Choice, ChoiceTree, Context
from quantnas_ext.errors import InputError

Index = int | tuple[int, ...]
Option = tuple[tuple[str, Index], ...]
"""One way to decide a block: (label, index of the value); several indices for an input choice of several values."""

Blocks = dict[str, list[Option]]

MOST_OPTIONS = 100_000
MOST_CASES = 10_000


class BlockOptions:
    """All options of every block of a space.

    A block is a choice without parent with all that hangs on it. A choice that several candidates share belongs to the
    block that these candidates are in where that is one block; else it is a block of its own, which has a meaning only
    where some other block chooses one of its owners.

    Args:
        tree: the choices of the space.

    Attributes:
        options: by the label of a block's root, all ways to decide it.
        block: for the label of every choice, the block it belongs to.

    Raises:
        InputError: when a block has more than ``MOST_OPTIONS`` options.
    """

    def __init__(self, tree: ChoiceTree) -> None:
        self._values = {choice.label: choice.values for choice in tree}
        self.options: Blocks = {root.label: _options(tree, root) for root in tree.roots()}
        self.block: dict[str, str] = {}
        for choice in tree:
            self.block[choice.label] = choice.label if choice.parent is None else self.block[choice.parent[0]]
        self._owners = {root.label: frozenset(root.owners) for root in tree.roots() if root.owners}
        while any(self._merge(shared) for shared in list(self._owners)):
            pass

    def contexts(self, option: Option) -> frozenset[Context]:
        """The choices ``(label, value)`` that an option makes, without those of several values."""
        return frozenset((label, self._values[label][index]) for label, index in option if isinstance(index, int))

    def cases(self) -> Iterator[Blocks]:
        """Restrictions of the blocks' options: every architecture is within exactly one, as one combination of options.

        They differ in which of the shared blocks have a meaning: in a case either no block chooses an owner of a shared
        one, whose only option then is to be left out, or it is settled which block is the first to choose one.

        Raises:
            InputError: for more than ``MOST_CASES`` cases.
        """
        order = [label for label in self.options if label not in self._owners] + list(self._owners)
        position = {label: index for index, label in enumerate(order)}
        hits = {
            shared: {label: self._hits(shared, label) for label in order if label != shared} for shared in self._owners
        }
        firsts: dict[str, list[str | None]] = {}
        for shared, hit in hits.items():
            firsts[shared] = []
            for label in hit:
                if hit[label]:
                    firsts[shared].append(label)
                if label not in self._owners and len(hit[label]) == len(self.options[label]):
                    break  # this block always chooses an owner
            else:
                firsts[shared].append(None)
        if math.prod(map(len, firsts.values())) > MOST_CASES:
            raise InputError(
                f"the candidates of too many blocks share the choices {', '.join(firsts)} to tell all architectures "
                "apart; share fewer choices"
            )
        for reached_by in (dict(zip(firsts, way, strict=True)) for way in itertools.product(*firsts.values())):
            if not all(_founded(shared, reached_by) for shared in reached_by):
                continue
            allowed = {label: set(range(len(self.options[label]))) for label in order}
            for shared, first in reached_by.items():
                for label, hit_by in hits[shared].items():
                    if first is None or position[label] < position[first]:
                        allowed[label] -= hit_by
                    elif label == first:
                        allowed[label] &= hit_by
            left_out = {shared for shared, first in reached_by.items() if first is None}
            if all(allowed[label] for label in order if label not in left_out):
                yield {
                    label: [()] if label in left_out else [options[index] for index in sorted(allowed[label])]
                    for label, options in self.options.items()
                }

    def _hits(self, shared: str, label: str) -> set[int]:
        """Which options of a block choose an owner of a shared block."""
        return {
            index
            for index, option in enumerate(self.options[label])
            if not self._owners[shared].isdisjoint(self.contexts(option))
        }

    def _merge(self, shared: str) -> bool:
        """Make a shared block part of the one block that its owners are in, if it is one."""
        blocks = {self.block[label] for label, _ in self._owners[shared]}
        if len(blocks) > 1 or shared in blocks:
            return False
        (block,) = blocks
        hits = self._hits(shared, block)
        if len(self.options[block]) + len(hits) * (len(self.options[shared]) - 1) > MOST_OPTIONS:
            raise _too_many(block)
        below = self.options.pop(shared)
        del self._owners[shared]
        self.options[block] = [
            option + rest
            for index, option in enumerate(self.options[block])
            for rest in (below if index in hits else [()])
        ]
        self.block = {label: block if of == shared else of for label, of in self.block.items()}
        return True


def _founded(shared: str, reached_by: Mapping[str, str | None]) -> bool:
    """Whether a shared block that has a meaning has it, in the end, from a block that always has one."""
    seen: set[str] = set()
    first = reached_by[shared]
    while first is not None and first in reached_by:
        if first in seen or reached_by[first] is None:
            return False
        seen.add(first)
        first = reached_by[first]
    return True


def _options(tree: ChoiceTree, choice: Choice) -> list[Option]:
    """All ways to decide a choice and what hangs on it."""
    indices = range(len(choice.values))
    if choice.multiple is not None:
        if math.comb(len(indices), choice.multiple) > MOST_OPTIONS:
            raise _too_many(choice.label)
        return [((choice.label, subset),) for subset in itertools.combinations(indices, choice.multiple)]
    options: list[Option] = []
    for index, value in enumerate(choice.values):
        below = [_options(tree, child) for child in tree.children(choice.label, value)]
        if len(options) + math.prod(map(len, below)) > MOST_OPTIONS:
            raise _too_many(choice.label)
        for rest in itertools.product(*below):
            options.append(((choice.label, index), *itertools.chain.from_iterable(rest)))
    return options


def _too_many(label: str) -> InputError:
    return InputError(
        f"choice {label!r} has more than {MOST_OPTIONS} combinations of choices within it, too many to rank them or to "
        "keep a budget; use fewer, or a Penalty"
    )
