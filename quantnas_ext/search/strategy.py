"""QuantNAS as an NNI strategy."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import DARTS, MutationHook, OneShotStrategy, is_supernet
from nni.nas.space import RawFormatModelSpace
from torch import nn

from quantnas_ext.arguments import name_among, real_number, whole_number
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution, DrawnSoftmax
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.distribution.regularizers import REGULARIZERS, Regularizer
from quantnas_ext.distribution.relaxation import Relaxation
from quantnas_ext.errors import InputError, shown
from quantnas_ext.quantization.noise.additive import NoiseDistribution, NoiseMixture
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.lightning import QuantNASLightningModule
from quantnas_ext.search.loop.settings import DERIVE_FROM, DeriveFrom
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.supernet.context import SupernetContext
from quantnas_ext.supernet.layer_choice import MixedLayerChoice
from quantnas_ext.supernet.merged_blocks import (
    MixedChoiceBlock,
    MixedSharedInput,
    log_unmerged,
    share_activation_quantizers,
)
from quantnas_ext.supernet.mixed_arguments import MixedArguments
from quantnas_ext.supernet.mixed_layers import MixedQuantConv2d, MixedQuantLinear
from quantnas_ext.supernet.quantization_mode import Evaluation, Mode, SearchQuantization


class QuantNAS(DARTS):
    """Differentiable search for operations and bit-widths against quantization noise.

    Extends NNI's DARTS: quantized layers of undecided precision get noise of the size of their rounding error, the
    architecture step minimises the validation loss plus costs and the joint entropy of operations and precisions, and
    the result is the joint arg max of every block. Works with NNI's Lightning evaluators and ``AccelerateEvaluator``.
    Source: Shvetsov et al., "QuantNAS for Super Resolution: Searching for Efficient Quantization-Friendly Architectures
    Against Quantization Noise", IEEE Access 12 (2024).

    Args:
        costs: penalties and budgets, for example ``[Penalty(BitOps((1, 3, 32, 32)), 1e-3)]``. A ``Budget`` is a limit
            that the found architecture keeps: multipliers hold the expected cost there, and the result is the most
            probable joint architecture within all budgets.
        entropy: largest weight of the regularizer (mu_max), reached in the last epoch; see ``entropy_weight``.
        regularizer: ``"entropy"`` (joint), ``"l1"``, ``"exp"`` or ``"none"``, see ``regularization``.
        relaxation: ``"softmax"``, ``"gumbel"``, ``"gumbel_hard"``, ``"gumbel_hard_sampled"``, ``"dropout"``,
            ``"one_path"``, ``"two_paths"`` or one that you have registered (``register_relaxation``).
        temperature: of Gumbel draws, at the first and last step after the warm-up.
        quantization: how it shows in the search: ``"noise"``, ``"direct"``, ``"direct_separate"`` or ``"none"``.
        noise: ``"uniform"`` or ``"gaussian"``.
        noise_mixture: how the noise of several precisions mixes, ``"rss"`` or ``"power"``.
        masked_noise: no noise on zero activations.
        evaluation: of blocks, ``"exact"``, ``"fast"`` or ``"separate"``; for this and the four above see
            ``SearchQuantization``.
        architecture_learning_rate: Adam's, for the logits. Adam moves a logit by about this much a step, so a search of
            few steps needs more: at least 10 / (number of architecture steps).
        warmup_epochs: epochs at the start in which only weights are trained.
        gradient_clip: largest norm of the weights' gradient; None for no clipping.
        derive_from: ``"last"``, or ``"best"``: the result is that of the epoch of lowest validation loss. For NNI's
            Lightning evaluators, see ``QuantNASLightningModule``; an ``AccelerateEvaluator`` can also be told itself.
        mutation_hooks: further NNI mutation hooks, run before ours.

    Raises:
        InputError: for an unknown noise, mixture, regularizer or relaxation, a number that is out of range or none, or
            costs that are neither penalties nor budgets.
    """

    def __init__(
        self,
        *,
        costs: Sequence[Penalty | Budget] = (),
        entropy: float = 0.0,
        regularizer: Regularizer = "entropy",
        relaxation: str = "softmax",
        temperature: tuple[float, float] = (10.0, 0.1),
        quantization: Mode = "noise",
        noise: NoiseDistribution = "uniform",
        noise_mixture: NoiseMixture = "rss",
        masked_noise: bool = False,
        evaluation: Evaluation = "exact",
        architecture_learning_rate: float = 3e-4,
        warmup_epochs: int = 0,
        gradient_clip: float | None = 5.0,
        derive_from: DeriveFrom = "last",
        mutation_hooks: list[MutationHook] | None = None,
    ) -> None:
        super().__init__(
            arc_learning_rate=real_number("architecture_learning_rate", architecture_learning_rate, above=0),
            gradient_clip_val=None if gradient_clip is None else real_number("gradient_clip", gradient_clip, above=0),
            warmup_epochs=whole_number("warmup_epochs", warmup_epochs, least=0),
            mutation_hooks=mutation_hooks,
        )
        if not isinstance(costs, Iterable):
            raise InputError(f"costs {shown(costs)} is no list; give one of penalties and budgets")
        self.costs = tuple(costs)
        for cost in self.costs:
            if not isinstance(cost, (Penalty, Budget)):
                raise InputError(
                    f"{shown(cost)} among the costs is neither a Penalty nor a Budget; make it one of them"
                )
        self.entropy = real_number("entropy", entropy)
        self.regularizer: Regularizer = name_among("regularizer", regularizer, REGULARIZERS)
        self.relaxation = Relaxation(relaxation, temperature)
        self.quantization = SearchQuantization(quantization, noise, noise_mixture, masked_noise, evaluation)
        self.derive_from: DeriveFrom = name_among("epoch to derive from:", derive_from, DERIVE_FROM)
        self._searched: tuple[SupernetContext, SearchObjective] | None = None

    @property
    def distribution(self) -> ArchitectureDistribution:
        """The distribution over architectures.

        Raises:
            RuntimeError: before the strategy has been given a model space.
        """
        return self.context.distribution

    @property
    def context(self) -> SupernetContext:
        """What the modules of the supernet share.

        Raises:
            RuntimeError: before the strategy has been given a model space.
        """
        return self._require_searched()[0]

    @property
    def objective(self) -> SearchObjective:
        """The loss of the architecture step.

        Raises:
            RuntimeError: before the strategy has been given a model space.
        """
        return self._require_searched()[1]

    def _require_searched(self) -> tuple[SupernetContext, SearchObjective]:
        if self._searched is None:
            raise RuntimeError("QuantNAS has no model space yet; call mutate_model(space) or run an experiment first")
        return self._searched

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        """Turn a model space into its supernet, in place, and create the distribution and the objective.

        Where a mutation hook fails the space and the strategy are as they were.

        Raises:
            InputError: when there is nothing to choose, a cost cannot be counted on this space, or a
                budget cannot be met.
        """
        if not isinstance(model, ModelSpace):
            raise InputError(f"QuantNAS searches an nni.nas.nn.pytorch.ModelSpace, not a {type(model).__name__}")
        if is_supernet(model):
            raise InputError(f"this {type(model).__name__} is a supernet already; give each search a new model space")
        distribution, objective = self._objective_of(model)
        before: Any = self._searched, self._arch_parameters  # type: ignore[has-type]
        self._searched = SupernetContext(distribution, self.quantization, objective.most_likely), objective
        self._arch_parameters = dict(distribution.logits.items())
        children = {module: dict(module._modules) for module in model.modules()}
        try:
            # DARTS.mutate_model would create logits of its own.
            OneShotStrategy.mutate_model(self, model)
            share_activation_quantizers(model)
            log_unmerged(model)
        except BaseException:
            for module, own in children.items():
                module._modules.clear()
                module._modules.update(own)
            self._searched, self._arch_parameters = before
            raise
        return model

    def default_mutation_hooks(self) -> list[MutationHook]:
        """Ours for quantized layers and layer choices, then those of DARTS."""
        ours: list[MutationHook] = [
            supernet_module.mutate
            for supernet_module in (
                MixedQuantConv2d,
                MixedQuantLinear,
                MixedArguments,
                MixedChoiceBlock,
                MixedSharedInput,
                MixedLayerChoice,
            )
        ]
        return [*ours, *super().default_mutation_hooks()]

    def run_hook(self, hook: MutationHook, name: str, module: nn.Module, memo: dict[str, Any]) -> Any:
        """Run one mutation hook with what our supernet modules need."""

        def with_arguments(module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> Any:
            return hook(module, name, memo, {**mutate_kwargs, "context": self.context})

        return super().run_hook(with_arguments, name, module, memo)

    def configure_softmax(self) -> nn.Module:
        """What NNI's own supernet modules call for probabilities: our one draw."""
        return DrawnSoftmax(self.distribution)

    def configure_oneshot_module(self, training_module: Any) -> QuantNASLightningModule:
        """The search around a Lightning evaluator's module."""
        return QuantNASLightningModule(
            training_module,
            self.context,
            self.objective,
            architecture_learning_rate=self.arc_learning_rate,
            gradient_clip_val=self.gradient_clip_val,
            warmup_epochs=self.warmup_epochs,
            derive_from=self.derive_from,
        )

    def mutate_evaluator(self, evaluator: Any) -> Any:
        """Make an evaluator run the search; ``AccelerateEvaluator`` and Lightning evaluators can."""
        if isinstance(evaluator, AccelerateEvaluator):
            return evaluator.bind(
                self.context,
                self.objective,
                architecture_learning_rate=self.arc_learning_rate,
                warmup_epochs=self.warmup_epochs,
                gradient_clip=self.gradient_clip_val,
                derive_from=self.derive_from,
            )
        return super().mutate_evaluator(evaluator)

    def list_models(self, sort: bool = True, limit: int | None = 1) -> Iterator[RawFormatModelSpace]:
        """The architectures found, the most probable first; NNI's ``export_top_models(top_k)`` asks for them.

        Args:
            sort: as NNI has it; they are always sorted.
            limit: how many, see ``top_architectures``; None for all, each made when it is asked for.
        """
        samples = [self.most_likely()] if limit == 1 else (sample for _, sample in self.objective.ranked())
        for sample in itertools.islice(samples, limit):
            yield self.model_space.freeze(sample)

    def derive(self) -> nn.Module:
        """The found architecture as a concrete network that keeps the supernet's weights, their device and dtype."""
        return self._frozen(self.most_likely())

    def _frozen(self, sample: dict[str, Any]) -> nn.Module:
        """A concrete network where the supernet is, and in its dtype; NNI makes new layers on the CPU in float32."""
        supernet = self.supernet
        network: nn.Module = supernet.freeze(sample)
        like = [p for p in supernet.parameters() if p.is_floating_point()]
        if len({p.device for p in like}) == 1:
            network.to(like[0].device)
        if len({p.dtype for p in like}) == 1:
            network.to(like[0].dtype)
        return network

    def most_likely(self) -> dict[str, Any]:
        """The architecture found, an NNI sample: the most probable one within all budgets."""
        return self.objective.most_likely()

    def top_architectures(self, k: int) -> list[tuple[float, dict[str, Any]]]:
        """The k most probable architectures, exactly and in order, each with its log-probability.

        The probability of an architecture is the product of those of all choices that have a meaning in it. Where
        there are budgets only architectures that ``most_likely`` could have been are listed: those that keep all
        budgets, and use them to 95 % where some architecture does.

        Args:
            k: how many; fewer are returned where there are no more.

        Returns:
            Natural logarithm of the probability, and NNI sample.

        Raises:
            InputError: for a k below 1, or when a block has too many combinations of choices to rank them.
        """
        k = whole_number("the number of top architectures,", k, least=1)
        return list(itertools.islice(self.objective.ranked(), k))

    def check(self, space: ModelSpace) -> None:
        """Refuse a space and costs that a search would refuse; the space is left as it is.

        Raises:
            InputError: as ``mutate_model``.
        """
        with torch.random.fork_rng(devices=[]):  # logits start at random; a search is the same with and without a check
            self._objective_of(space)

    def _objective_of(self, space: ModelSpace) -> tuple[ArchitectureDistribution, SearchObjective]:
        """New logits of a space, and what a search of it minimises."""
        distribution = ArchitectureDistribution(ChoiceTree.of(space), self.relaxation)
        return distribution, SearchObjective(self.costs, self.entropy, space, distribution, self.regularizer)

    @torch.no_grad()
    def state_dict(self) -> dict[str, Any]:
        """The logits; the evaluator keeps its own checkpoints."""
        return {} if self._searched is None else self.distribution.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over logits from ``state_dict``."""
        if state_dict:
            self.distribution.load_state_dict(state_dict)
