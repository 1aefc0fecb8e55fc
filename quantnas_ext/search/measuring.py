"""Candidates for a search's answer, measured as they will be used: quantized, with weights of their own that train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn, optim
from tqdm import tqdm

from quantnas_ext.deriving.calibration import recalibrate_batch_norm, score
from quantnas_ext.deriving.plain_architectures import plain_architectures
from quantnas_ext.files.atomic import save_tensors
from quantnas_ext.quantization import give_steps_a_group
from quantnas_ext.search.loop.checkpoint import load_checkpoint
from quantnas_ext.search.loop.environment import plain_modes
from quantnas_ext.search.loop.inputs import SearchData
from quantnas_ext.search.loop.sampling import FixedBatches
from quantnas_ext.search.strategy import QuantNAS


@dataclass
class Candidate:
    """An architecture that can become a search's answer.

    Attributes:
        choices: an NNI sample.
        log_probability: natural logarithm of its probability.
        plain: whether it is there because anybody would build it, rather than for its probability.
        losses: on validation crops, after each round of training that it took part in.
    """

    choices: dict[str, Any]
    log_probability: float
    plain: bool = False
    losses: list[float] = field(default_factory=list)


def candidates_of(strategy: QuantNAS) -> list[Candidate]:
    """What the answer of a search with budgets is chosen from, as many as ``StrategyOptions.measured`` says.

    Returns:
        The most probable architectures within the budgets, in order, and half as many plain ones at most; empty where
        nothing is to be measured.
    """
    selector, most = strategy.objective.selector, strategy.options.measured
    if selector is None or not selector.budgets or not most:
        return []
    found = [Candidate(sample, value) for value, sample in strategy.top_architectures(most)]
    logs = strategy.distribution.log_probabilities()
    for sample in plain_architectures(selector, logs, most // 2):
        if all(sample != candidate.choices for candidate in found):
            found.append(Candidate(sample, selector.log_probability(logs, sample), plain=True))
    return found


class SuccessiveHalving:
    """Candidates that train for a while, the better ones for longer, until the best by validation loss is left.

    All start with fresh weights, as before the search: a supernet's are trained for its probable architectures, and for
    no other. They have their real quantizers and see the same batches. In a round all that are left make equally many
    steps, at a learning rate that falls along a cosine; the better half goes on (Jamieson and Talwalkar,
    "Non-stochastic best arm identification and hyperparameter optimization", AISTATS 2016). Every round takes about the
    same number of steps in all, and together they take as many as the search.

    Args:
        strategy: after its search.
        space: as it was before the search.
        data: of the search. The half for the weights trains; the other one decides, on crops that no step saw.
        candidates: at least one; their ``losses`` are filled.
        checkpoint: file that is written after every round, and gone on from if it is of the same candidates; None for
            none.

    Attributes:
        left: places of the candidates that are left, the best first.
    """

    def __init__(
        self,
        strategy: QuantNAS,
        space: ModelSpace,
        data: SearchData,
        candidates: Sequence[Candidate],
        checkpoint: Path | None = None,
    ) -> None:
        self._clip, self._space, self._data = strategy.options.gradient_clip, space, data
        self._candidates, self._checkpoint = candidates, checkpoint
        self._device = next(iter(strategy.distribution.parameters())).device
        self.left, self._round, self._networks = list(range(len(candidates))), 0, dict[int, nn.Module]()

    def run(self) -> tuple[Candidate, nn.Module]:
        """The best candidate, and its network with the weights that it has by now."""
        sizes = [len(self._candidates)]
        while sizes[-1] > 3:
            sizes.append(sizes[-1] // 2)
        steps = [self._steps() // (len(sizes) * size) or 1 for size in sizes]
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), plain_modes(self._device):
            self._start()
            total = sum(count * size for count, size in zip(steps, sizes, strict=True))
            with tqdm(total=total, desc="measuring", unit="step") as bar:
                for place, (count, size) in enumerate(zip(steps, sizes, strict=True)):
                    if place < self._round:
                        bar.update(count * size)
                        continue
                    self._train(count, sum(steps[:place]), bar)
                    self._halve([*sizes[1:], 1][place])
        return self._candidates[self.left[0]], self._networks[self.left[0]]

    def _steps(self) -> int:
        return self._data.options.epochs * self._data.steps_per_epoch

    def _start(self) -> None:
        """Make the networks of all candidates, or of those that the checkpoint says are left."""
        choices = [candidate.choices for candidate in self._candidates]
        state: dict[str, Any] = {}
        if self._checkpoint is not None and self._checkpoint.exists():
            state = load_checkpoint(self._checkpoint, required=("choices", "losses", "left", "networks"))
        if state and state["choices"] == choices:
            self.left, self._round = state["left"], max(map(len, state["losses"]))
            for candidate, losses in zip(self._candidates, state["losses"], strict=True):
                candidate.losses[:] = losses
        else:
            state = {}
        for place in self.left:
            network = self._networks[place] = self._space.freeze(choices[place]).to(self._device)
            if self._data.options.channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if state:
                network.load_state_dict(state["networks"][place])

    def _train(self, steps: int, before: int, bar: Any) -> None:
        """Let all that are left make so many steps, in step with one another, after ``before`` earlier ones."""
        options = self._data.options
        torch.manual_seed(options.seed * 1_000_003 + before)
        learning = []
        for place in self.left:
            network = self._networks[place].train()
            optimizer = optim.Adam(
                network.parameters(), options.weight_learning_rate, weight_decay=options.weight_decay
            )
            give_steps_a_group(optimizer, network)
            learning.append((network, optimizer, optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)))
        for inputs, targets in self._batches(steps, before):
            for network, optimizer, scheduler in learning:
                optimizer.zero_grad()
                self._data.loss(network(inputs), targets).backward()
                if self._clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), self._clip)
                optimizer.step()
                scheduler.step()
                bar.update()

    def _batches(self, steps: int, before: int) -> Iterator[list[Tensor]]:
        """So many batches of crops that the search does not see: one pass over the data after another."""
        data, options = self._data, self._data.options
        made = 0
        while made < steps:
            epoch = options.epochs + 1 + before + made
            for batch in FixedBatches(
                data.train, options.batch_size, steps - made, seed=options.seed, epoch=epoch, workers=options.workers
            ):
                made += 1
                yield [tensor.to(self._device) for tensor in batch]

    def _halve(self, most: int) -> None:
        """Score all that are left, keep the best, and write the checkpoint."""
        data, losses = self._data, {}
        for place in self.left:
            network = self._networks[place].eval()
            recalibrate_batch_norm(network, data.fixed_batches(data.train))
            losses[place] = score(network, data.fixed_batches(data.validation), {"loss": data.loss})["loss"]
            self._candidates[place].losses.append(losses[place])
        self.left = sorted(self.left, key=lambda place: losses[place])[:most]
        self._networks = {place: self._networks[place] for place in self.left}
        if self._checkpoint is not None:
            state = {
                "choices": [candidate.choices for candidate in self._candidates],
                "losses": [candidate.losses for candidate in self._candidates],
                "left": self.left,
                "networks": {place: network.state_dict() for place, network in self._networks.items()},
            }
            save_tensors(state, self._checkpoint, parents=True)
