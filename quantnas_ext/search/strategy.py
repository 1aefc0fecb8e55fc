"""QuantNAS as an NNI strategy."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import nni.nas.strategy  # noqa: F401 (before its one-shot part, or NNI's strategies become classes that always fail)
import torch
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import DARTS, MutationHook, OneShotStrategy, is_supernet
from nni.nas.space import RawFormatModelSpace
from torch import nn, optim

from quantnas_ext.arguments import whole_number
from quantnas_ext.compat import prepare_supernets, without_message
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution, DrawnSoftmax
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.distribution.relaxation import Relaxation
from quantnas_ext.errors import InputError, shown
from quantnas_ext.search.experiment import ReportingEvaluator
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.inputs import BoundStrategy
from quantnas_ext.search.loop.lightning import QuantNASLightningModule
from quantnas_ext.search.loop.own_loop import OwnLoop
from quantnas_ext.search.loop.phases import Phase
from quantnas_ext.search.loop.schedule import Schedule
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
from quantnas_ext.supernet.mixed_repeat import MixedRepeat
from quantnas_ext.supernet.quantization_mode import SearchQuantization
from quantnas_ext.supernet.searchable import note_unquantized, refuse_unsearchable


class QuantNAS(DARTS):
    """Differentiable search for operations and bit-widths against quantization noise.

    Extends NNI's DARTS: quantized layers of undecided precision get noise of the size of their rounding error, the
    architecture step minimises the validation loss plus costs and the joint entropy of operations and precisions, and
    the result is the joint arg max of every block. Works with NNI's Lightning evaluators, ``AccelerateEvaluator``, and
    in a training loop of the user's own (``start``).
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
        self._supernet: ModelSpace | None = None
        self._loop: OwnLoop | None = None

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
        prepare_supernets()
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
        self._supernet, self._loop = model, None
        return model

    @property
    def supernet(self) -> ModelSpace:
        """The supernet, once ``mutate_model`` has made it; as ``context``."""
        self._require_searched()
        return self._supernet

    def start(self, optimizer: optim.Optimizer, *, epochs: int, steps_per_epoch: int, seed: int = 0) -> None:
        """Begin a search in a training loop of one's own, after ``mutate_model``.

        Each step, counted from 0 to ``epochs * steps_per_epoch - 1``, is an ``architecture_phase`` on validation data,
        from the end of the warm-up on, and a ``weight_phase`` on training data. Calls the supernet in both; in several
        processes the bare one in the former, and that within ``DistributedDataParallel`` in the latter.

        Args:
            optimizer: of the supernet's weights, on their device, before a learning rate schedule is made for it.
            epochs: how long the search is, warm-up included. The schedules of entropy and temperature go by it.
            steps_per_epoch: steps in each.
            seed: of draws and noise, the same in all processes.

        Raises:
            InputError: for an optimizer that lacks weights of the supernet, numbers that are not possible, or
                ``derive_from="best"``, for which an evaluator is needed.
        """
        warmup = self.options.warmup_epochs
        schedule = Schedule(
            whole_number("epochs", epochs, least=warmup + 1),
            whole_number("steps_per_epoch", steps_per_epoch, least=1),
            warmup,
        )
        if self.options.derive_from == "best":
            raise InputError("derive_from='best' needs an evaluator, which measures epochs; use derive_from='last'")
        strategy = BoundStrategy(self.context, self.objective, self.options)
        self._loop = OwnLoop(self.supernet, strategy, optimizer, schedule, whole_number("seed", seed, least=0))

    def architecture_phase(self, step: int) -> AbstractContextManager[Phase]:
        """The phase of a step in which logits learn: ``with strategy.architecture_phase(step) as phase:``.

        Within it the supernet's weights are frozen and its probabilities and noise those of the phase.
        ``phase.minimize(loss)`` of what the supernet gave there adds costs, budgets and entropy and takes the step.

        Args:
            step: counted from 0 on; to be left out in the warm-up, see ``searching``.

        Raises:
            InputError: before ``start``, in the warm-up, within another phase, out of order, for a supernet in
                evaluation mode, or where the phase ends without a loss, or with one that the supernet has not given.
        """
        return self._require_loop().architecture(whole_number("step", step, least=0))

    def weight_phase(self, step: int) -> AbstractContextManager[Phase]:
        """The phase of a step in which weights learn; as ``architecture_phase``.

        ``phase.minimize(loss)`` takes a step of the optimizer, with gradients clipped by ``gradient_clip``.
        """
        return self._require_loop().weight(whole_number("step", step, least=0))

    def searching(self, step: int) -> bool:
        """Whether a step has an architecture phase: whether the warm-up is over.

        Raises:
            InputError: before ``start``.
        """
        return self._require_loop().phases.schedule.searching(step)

    def _require_loop(self) -> OwnLoop:
        if self._loop is None:
            raise InputError(
                "the search has not been started; call start(optimizer, epochs=..., steps_per_epoch=...) before its "
                "first phase"
            )
        return self._loop

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
                MixedRepeat,
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
        """Make an evaluator run the search; ``AccelerateEvaluator`` and Lightning evaluators can.

        Raises:
            InputError: for an evaluator of another kind.
        """
        if isinstance(evaluator, AccelerateEvaluator):
            return ReportingEvaluator(evaluator.bind(self.context, self.objective, self.options))
        if not isinstance(evaluator, Lightning):
            raise InputError(
                f"QuantNAS trains a supernet, which {type(evaluator).__name__} does not; use AccelerateEvaluator, "
                "or one of NNI's Lightning evaluators"
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
        refuse_unsearchable(space)
        if self.options.quantization != "none":
            note_unquantized(space)
        distribution = ArchitectureDistribution(ChoiceTree.of(space), self.relaxation)
        return distribution, SearchObjective(
            self.costs, self.options.entropy, space, distribution, self.options.regularizer
        )

    def state_dict(self) -> dict[str, Any]:
        """What a search goes on with besides the supernet's weights and their optimizer.

        That is logits and multipliers; in a loop of one's own (``start``) also the optimizer of the logits; with a
        Lightning evaluator the path of Lightning's last checkpoint, which has it all, and from which NNI resumes.
        ``AccelerateEvaluator`` keeps its own checkpoints.
        """
        if self._searched is None:
            return {}
        state: dict[str, Any] = {
            "distribution": self.distribution.state_dict(),
            "objective": self.objective.state_dict(),
        }
        if self._loop is not None:
            state["architecture_optimizer"] = self._loop.architecture_optimizer.state_dict()
        if self._in_lightning():
            callback = self._mutated_model_space.evaluator.trainer.checkpoint_callback
            path = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
            if path:
                state["ckpt_path"] = path
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over ``state_dict``, after ``mutate_model``, and in a loop of one's own after ``start``.

        Raises:
            InputError: for the state of such a loop before ``start``.
        """
        if not state_dict:
            return
        if "architecture_optimizer" in state_dict:
            self._require_loop()
        self.distribution.load_state_dict(state_dict["distribution"])
        self.objective.load_state_dict(state_dict["objective"])
        if self._loop is not None and "architecture_optimizer" in state_dict:
            self._loop.architecture_optimizer.load_state_dict(state_dict["architecture_optimizer"])
        if self._in_lightning():
            super().load_state_dict(state_dict)

    def _run(self) -> None:
        """Train; NNI warns of missing validation data, and adds that one-shot searches may ignore that."""
        with without_message("nni.nas.evaluator.pytorch.lightning", "Validation dataloaders are missing"):
            super()._run()

    def _in_lightning(self) -> bool:
        mutated = self._mutated_model_space
        return mutated is not None and isinstance(mutated.evaluator, Lightning)
