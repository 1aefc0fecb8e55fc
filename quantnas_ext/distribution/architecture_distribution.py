"""The probability distribution over architectures that a search learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from quantnas_ext.distribution.choices import Choice, ChoiceTree, Context
from quantnas_ext.distribution.relaxation import Relaxation, Relaxed
from quantnas_ext.errors import InputError


@dataclass(frozen=True)
class Draw:
    """The probabilities that one whole phase of a search works with.

    Attributes:
        relaxed: as tables, whose rows are those of the distribution's tree.
        by_label: the rows of the probabilities, each of its own length, by label.
        sampled: by label the places of the values to evaluate; None for all.
    """

    relaxed: Relaxed
    by_label: Mapping[str, Tensor]
    sampled: Mapping[str, tuple[int, ...]] | None = None

    @property
    def probabilities(self) -> Tensor:
        """``[choices, most values]``, zero where a row is shorter."""
        return self.relaxed.probabilities

    @property
    def expectation(self) -> Tensor:
        """The probabilities that expected costs are of: the draw itself, or what sampled candidates were drawn from."""
        return self.probabilities if self.sampled is None else self.relaxed.soft

    def active(self, label: str) -> tuple[int, ...]:
        """Places of the values of a label that are to be evaluated: all, or the sampled ones."""
        return tuple(range(len(self.by_label[label]))) if self.sampled is None else self.sampled[label]

    def __getitem__(self, label: str) -> Tensor:
        return self.by_label[label]


class ArchitectureDistribution(nn.Module):
    """All logits of a search, and the one draw of probabilities that forward, cost, entropy and export read.

    A choice has the distribution ``softmax(logits)``; the precision of a candidate is distributed given that the
    candidate is chosen. So ``p(op) p(bits | op)`` is the joint distribution of a block.

    Args:
        tree: the choices of the space.
        relaxation: how ``draw`` makes probabilities; the distribution itself by default.

    The logits start near zero (standard deviation 1e-3), as in DARTS (Liu et al., ICLR 2019).

    Raises:
        InputError: for a label that no parameter can have, such as one with a dot.
    """

    _present: Tensor
    _position: Tensor
    _flat: Tensor
    _parent_entry: Tensor
    _parent_row: Tensor
    _block: Tensor

    def __init__(self, tree: ChoiceTree, relaxation: Relaxation | None = None) -> None:
        super().__init__()
        self.tree = tree
        self.relaxation = relaxation or Relaxation()
        for choice in tree:
            if "." in choice.label or not choice.label or hasattr(nn.ParameterDict, choice.label):
                raise InputError(
                    f"a choice cannot be labelled {choice.label!r}, as its logits are a parameter of that name; use "
                    "another label, of letters, digits and underscores"
                )
        # From pairs: given a plain dict, ParameterDict would sort the labels.
        self.logits = nn.ParameterDict([(c.label, nn.Parameter(1e-3 * torch.randn(len(c.values)))) for c in tree])
        self.rows = {choice.label: row for row, choice in enumerate(tree)}
        self._lengths = [len(choice.values) for choice in tree]
        longest = max(self._lengths)
        present = torch.arange(longest)[None, :] < torch.tensor(self._lengths)[:, None]
        # Position of every table entry in the row of all logits put together; absent entries point behind its end.
        position = torch.full(present.shape, sum(self._lengths))
        position[present] = torch.arange(sum(self._lengths))
        self.register_buffer("_present", present, persistent=False)
        self.register_buffer("_position", position, persistent=False)
        self.register_buffer("_flat", present.flatten().nonzero().squeeze(1), persistent=False)
        self._register_ancestry(longest)
        self._draw: Draw | None = None
        self._use = SimpleNamespace(read=False)  # to set an attribute of a module itself is slow

    def _register_ancestry(self, columns: int) -> None:
        """For every row: where the probability of its parent's value stands in the table, its parent, its block."""
        always = len(self.tree) * columns  # an entry behind the table that holds 1
        blocks = {root.label: index for index, root in enumerate(self.tree.roots())}
        parent_entry: list[int] = []
        parent_row: list[int] = []
        block: list[int] = []
        for row, choice in enumerate(self.tree):
            above = row if choice.parent is None else self.rows[choice.parent[0]]
            parent_row.append(above)
            if choice.parent is None:
                parent_entry.append(always)
                block.append(blocks[choice.label])
            else:
                parent_entry.append(above * columns + self.tree.choices[above].values.index(choice.parent[1]))
                block.append(block[above])
        self._nesting = self.tree.nesting()
        self._blocks = len(blocks)
        self.register_buffer("_parent_entry", torch.tensor(parent_entry), persistent=False)
        self.register_buffer("_parent_row", torch.tensor(parent_row), persistent=False)
        self.register_buffer("_block", torch.tensor(block), persistent=False)

    def __getstate__(self) -> dict[str, Any]:
        # A draw may hold a graph, which cannot be copied; a copy makes its own.
        return {**self.__dict__, "_draw": None}

    @property
    def current(self) -> Draw:
        """The draw of the present phase; the first use makes one without gradient."""
        if self._draw is None:
            with torch.no_grad():
                self.settle()
            assert self._draw is not None
        self._use.read = True
        return self._draw

    @property
    def read(self) -> bool:
        """Whether anything has asked for the ``current`` draw since it was drawn."""
        return bool(self._use.read)

    def draw(self, progress: float = 0.0, generator: torch.Generator | None = None) -> Draw:
        """Draw the probabilities for the phase that begins; they stay the same until the next call.

        Args:
            progress: share of the search that is done, which sets the temperature.
            generator: source of random numbers, on the CPU; torch's global one by default.
        """
        self._draw, self._use.read = self._drawn(self.relaxation, progress, generator), False
        return self._draw

    def settle(self) -> Draw:
        """As ``draw``, but always the distribution itself, without a relaxation's noise."""
        self._draw = self.softmax()
        return self._draw

    def forget(self) -> None:
        """End the present draw, whose graph may be gone; until the next one ``current`` is the distribution itself."""
        self._draw = None

    def softmax(self) -> Draw:
        """The distribution itself, ``softmax(logits)``; the current draw stays."""
        return self._drawn(Relaxation(), 0.0, None)

    def _drawn(self, relaxation: Relaxation, progress: float, generator: torch.Generator | None) -> Draw:
        # Under inference_mode, too, a draw is one that a later step can be trained with.
        with_graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(with_graph):
            flat = torch.cat([*self.logits.values(), self._present.new_full((1,), -torch.inf, dtype=torch.float32)])
            drawn = relaxation.relax(flat[self._position], self._present, progress, generator)
            rows = drawn.probabilities.flatten()[self._flat].split(self._lengths)
        sampled = None if drawn.sampled is None else dict(zip(self.rows, drawn.sampled, strict=True))
        return Draw(drawn, dict(zip(self.rows, rows, strict=True)), sampled)

    def block_entropies(self, draw: Draw | None = None) -> Tensor:
        """Entropy of each block's joint distribution, ``H(op) + sum p(op) H(bits | op)``, in nats.

        A choice that several candidates share is a block of its own, weighted with the probability that any of them is
        chosen, so that all blocks' entropies sum to that of the whole distribution.

        Args:
            draw: probabilities to use; the current draw by default.

        Returns:
            ``[blocks]``, in the order of ``tree.roots()``, differentiable where the draw is.
        """
        draw = draw or self.current
        _, soft, log_probabilities, _ = draw.relaxed
        own = -(soft * log_probabilities).sum(dim=1)
        return own.new_zeros(self._blocks).index_add(0, self._block, own * self.reach(draw))

    def reach(self, draw: Draw) -> Tensor:
        """Probability that a choice has a meaning, for each: ``[choices]``, in the order of ``tree``.

        Args:
            draw: of which probabilities.
        """
        soft = draw.relaxed.soft
        table = torch.cat([soft.flatten(), soft.new_ones(1)])
        given_parent = table[self._parent_entry]
        reached = given_parent
        for _ in range(self._nesting - 1):
            reached = given_parent * reached[self._parent_row]
        roots = self.tree.roots()
        if not any(root.owners for root in roots):
            return reached
        return reached * torch.stack([self._reached(root, soft, frozenset()) for root in roots])[self._block]

    @torch.no_grad()
    def shift(self, amounts: Tensor) -> None:
        """Add to the logits: ``[choices, most values]``, rows as in ``Draw.probabilities``."""
        rows = amounts.flatten()[self._flat].split(self._lengths)
        for logits, row in zip(self.logits.values(), rows, strict=True):
            logits.add_(row)

    def _reached(self, root: Choice, table: Tensor, below: frozenset[str]) -> Tensor:
        """Probability that a root has a meaning, with the blocks that its owners are in as independent."""
        missed = table.new_ones(())
        for other in self.tree.roots() if root.owners else ():
            if other.label not in below | {root.label}:
                hit = self._hit(other, root.owners, table)
                if hit is not None:
                    missed = missed * (1 - hit * self._reached(other, table, below | {root.label}))
        return 1 - missed if root.owners else missed

    def _hit(self, choice: Choice, owners: tuple[Context, ...], table: Tensor) -> Tensor | None:
        """Probability that a choice and those below it take any of the values ``owners``; None where they have none."""
        hits = []
        for column, value in enumerate(choice.values):
            probability = table[self.rows[choice.label], column]
            if (choice.label, value) in owners:
                hits.append(probability)
                continue
            below = [self._hit(child, owners, table) for child in self.tree.children(choice.label, value)]
            missed = [1 - hit for hit in below if hit is not None]
            if missed:
                hits.append(probability * (1 - torch.stack(missed).prod()))
        return torch.stack(hits).sum() if hits else None

    def entropy(self, draw: Draw | None = None) -> Tensor:
        """Sum of ``block_entropies``: a scalar, in nats."""
        return self.block_entropies(draw).sum()

    def most_likely(self) -> dict[str, Any]:
        """The joint arg max: in every block the choice and what belongs to it whose joint probability is largest.

        Returns:
            An NNI sample with the labels that matter for it only (no precisions of candidates that lost).
        """
        with torch.no_grad():
            probabilities = self.probabilities()
        sample: dict[str, Any] = {}
        for root in self.tree.roots():
            sample.update(self._best(root, probabilities)[1])
        return sample

    def confidences(self) -> dict[str, float]:
        """For each block (root label) the largest joint probability of its distribution.

        For a choice that several candidates share that is its distribution given that one of them is chosen.
        """
        probabilities = self.probabilities()
        return {root.label: self._best(root, probabilities)[0] for root in self.tree.roots()}

    @torch.no_grad()
    def probabilities(self) -> dict[str, list[float]]:
        """``softmax(logits)`` for every label, as plain numbers."""
        return {label: logits.detach().float().softmax(dim=0).tolist() for label, logits in self.logits.items()}

    @torch.no_grad()
    def log_probabilities(self) -> dict[str, list[float]]:
        """``log softmax(logits)`` for every label in double precision, so that none is minus infinity."""
        return {label: logits.detach().double().log_softmax(dim=0).tolist() for label, logits in self.logits.items()}

    def _best(self, choice: Choice, probabilities: Mapping[str, list[float]]) -> tuple[float, dict[str, Any]]:
        """Largest joint probability of a choice with all below it, and the sample that has it."""
        if choice.multiple is not None:
            mass, chosen = choice.best_subset(probabilities[choice.label])
            return mass, {choice.label: chosen}
        candidates = []
        for value, probability in zip(choice.values, probabilities[choice.label], strict=True):
            sample = {choice.label: value}
            for child in self.tree.children(choice.label, value):
                child_probability, child_sample = self._best(child, probabilities)
                probability *= child_probability
                sample.update(child_sample)
            candidates.append((probability, sample))
        return max(candidates, key=lambda candidate: candidate[0])


class DrawnSoftmax(nn.Module):
    """Stands for ``softmax`` in NNI's own supernet modules and answers with the distribution's current draw.

    Args:
        distribution: holds the logits that those modules were given.
    """

    def __init__(self, distribution: ArchitectureDistribution) -> None:
        super().__init__()
        self._distribution = (distribution,)

    def forward(self, logits: Tensor) -> Tensor:
        """Probabilities of the label whose logits these are."""
        (distribution,) = self._distribution
        for label, parameter in distribution.logits.items():
            if parameter is logits:
                return distribution.current[label]
        return logits.softmax(dim=-1)
