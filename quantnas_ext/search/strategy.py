"""QuantNAS as an NNI strategy."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import nni.nas.strategy  # noqa: F401 (before its one-shot part, or NNI's strategies become classes that always fail)
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import DARTS, MutationHook, OneShotStrategy, is_supernet
from nni.nas.space import RawFormatModelSpace
from torch import nn

from quantnas_ext.arguments import whole_number
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution, DrawnSoftmax
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.distribution.relaxation import Relaxation
from quantnas_ext.errors import InputError, shown
from quantnas_ext.search.experiment import ReportingEvaluator
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.lightning import QuantNASLightningModule
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.search.options import StrategyOptions, chosen, takes
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
from quantnas_ext.supernet.quantization_mode import SearchQuantization


class QuantNAS(DARTS):
    """Differentiable search for operations and bit-widths against quantization noise.

    Extends NNI's DARTS: quantized layers of undecided precision get noise of the size of their rounding error, the
    architecture step minimises the validation loss plus costs and the joint entropy of operations and precisions, and
    the result is the joint arg max of every block. Works with NNI's Lightning evaluators and ``AccelerateEvaluator``.
    Source: Shvetsov et al., "QuantNAS for Super Resolution: Searching for Efficient Quantization-Friendly Architectures
    Against Quantization Noise", IEEE Access 12 (2024).

    Args:
        costs: penalties and budgets, for example ``[Penalty(BitOps((1, 3, 32, 32)), 1e-3)]``. A ``Budget`` is a limit
            that the found architecture keeps: a target leads the expected cost there, and the result is the most
            probable joint architecture within all budgets.
        options: what to search with.
        mutation_hooks: further NNI mutation hooks, run before ours.
        changes: options by name, as in ``QuantNAS(costs=[...], entropy=0.1)``.

    Raises:
        InputError: for an option that is none or not possible (see ``StrategyOptions``), or costs that are neither
            penalties nor budgets.
    """

    @takes(StrategyOptions)
    def __init__(
        self,
        options: StrategyOptions | None = None,
        *,
        costs: Sequence[Penalty | Budget] = (),
        mutation_hooks: list[MutationHook] | None = None,
        **changes: Any,
    ) -> None:
        self.options = given = chosen(StrategyOptions, options, changes)
        super().__init__(
            arc_learning_rate=given.architecture_learning_rate,
            gradient_clip_val=given.gradient_clip,
            warmup_epochs=given.warmup_epochs,
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
        self.relaxation = Relaxation(given.relaxation, given.temperature)
        self.quantization = SearchQuantization(
            given.quantization, given.noise, given.noise_mixture, given.masked_noise, given.evaluation
        )
        self._searched: tuple[SupernetContext, SearchObjective] | None = None

    @property
    def distribution(self) -> ArchitectureDistribution:
        """The distribution over architectures; as ``context``."""
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
        """The loss of the architecture step; as ``context``."""
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
        return QuantNASLightningModule(training_module, self.context, self.objective, self.options)

    def mutate_evaluator(self, evaluator: Any) -> Any:
        """Make an evaluator run the search; ``AccelerateEvaluator`` and Lightning evaluators can."""
        if isinstance(evaluator, AccelerateEvaluator):
            return ReportingEvaluator(evaluator.bind(self.context, self.objective, self.options))
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

    def derive(self, sample: Mapping[str, Any] | None = None) -> nn.Module:
        """An architecture as a concrete network that keeps the supernet's weights, their device and dtype.

        Args:
            sample: the choices; those of ``most_likely`` by default.
        """
        supernet = self.supernet
        network: nn.Module = supernet.freeze(self.most_likely() if sample is None else sample)
        # NNI makes new layers on the CPU in float32.
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
        """The k most probable architectures within the budgets, in order, see ``ArchitectureSelector``.

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
        return distribution, SearchObjective(
            self.costs, self.options.entropy, space, distribution, self.options.regularizer
        )

    @torch.no_grad()
    def state_dict(self) -> dict[str, Any]:
        """The logits; the evaluator keeps its own checkpoints."""
        return {} if self._searched is None else self.distribution.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over logits from ``state_dict``."""
        if state_dict:
            self.distribution.load_state_dict(state_dict)
