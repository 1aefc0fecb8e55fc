"""Modules whose arguments are searched although their parameters are always the same, such as a dropout."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from nni.nas.nn.pytorch import ParametrizedModule
from nni.nas.oneshot.pytorch.supermodule.operation import NATIVE_MIXED_OPERATIONS
from torch import nn

from quantnas_ext.costs.dry_run import SharedVariants, searched_arguments, variants_of_one_cost
from quantnas_ext.supernet.context import SupernetContext
from quantnas_ext.supernet.layer_choice import SupernetModule
from quantnas_ext.supernet.mixture import added, scaled

NATIVE = tuple(operation.bound_type for operation in NATIVE_MIXED_OPERATIONS)
"""What NNI has supernet modules of its own for."""


class MixedArguments(SupernetModule, SharedVariants):
    """A module with every value that its arguments can have, outputs summed with the probabilities of the values.

    Stands for NNI's ``Mutable...`` modules whose searched arguments change neither parameters nor products: dropouts,
    activations, poolings of one output size, normalisations of another ``eps``. All share the parameters; running
    statistics are each one's own. One that has nothing to choose keeps its parameters when it is frozen, where NNI
    makes a new module.

    Args:
        module: the mutable module, whose parameters it takes over.
        variants: of it, for each combination of values in the order of ``itertools.product``.
        context: of the supernet.
    """

    def __init__(self, module: Any, variants: list[nn.Module], context: SupernetContext) -> None:
        super().__init__()
        for mutable in module.mutables:
            self.add_mutable(mutable)
        self._context = (context,)
        self.values = {str(label): list(mutable.values) for label, mutable in module.simplify().items()}
        self.name = type(module).__name__
        tensor = next(itertools.chain(module.parameters(), module.buffers()), None)
        for variant in variants:
            variant.train(module.training)
            variant.load_state_dict(module.state_dict())
            if tensor is not None:
                variant.to(tensor.device)
            for path, parameter in module.named_parameters():
                owner, _, attribute = path.rpartition(".")
                setattr(variant.get_submodule(owner), attribute, parameter)
        # In the search all read one input, which none may change.
        self._in_place: list[list[Any]] = [
            [part for part in v.modules() if getattr(part, "inplace", None) is True] for v in variants
        ]
        if len(variants) > 1:
            for part in itertools.chain(*self._in_place):
                part.inplace = False
        self.variants = nn.ModuleList(variants)

    @classmethod
    def mutate(
        cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]
    ) -> MixedArguments | None:
        """NNI mutation hook."""
        if not isinstance(module, ParametrizedModule):
            return None
        if not searched_arguments(module) and (isinstance(module, NATIVE) or module._bound_type is None):
            return None
        with torch.random.fork_rng(devices=[]):  # variants start at random before they share parameters
            variants = variants_of_one_cost(module)
        return cls(module, variants, mutate_kwargs["context"]) if variants else None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """``sum_v p_v variant_v(...)`` over the combinations of values that the present draw evaluates."""
        if len(self.variants) == 1:
            return self.variants[0](*args, **kwargs)
        draw, total = self.draw, None
        probabilities = [draw[label].unbind() for label in self.values]
        for count, (index, places) in enumerate(self._active()):
            p = probabilities[0][places[0]]
            for others, place in zip(probabilities[1:], places[1:], strict=True):
                p = p * others[place]
            candidate = f"variant {index + 1} of {self.name}"
            output = scaled(self.variants[index](*args, **kwargs), p, candidate)
            total = output if count == 0 else added(total, output, candidate)
        return total

    def _active(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Variants that the draw evaluates: their place, and the place of each label's value."""
        active = [set(self.draw.active(label)) for label in self.values]
        for index, places in enumerate(itertools.product(*(range(len(values)) for values in self.values.values()))):
            if all(place in allowed for place, allowed in zip(places, active, strict=True)):
                yield index, places

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """A copy of the variant of the chosen values, with its parameters."""
        self.validate(sample)
        index = 0
        for label, values in self.values.items():
            index = index * len(values) + values.index(sample[label])
        memo: dict[int, Any] = {}
        variant: nn.Module = copy.deepcopy(self.variants[index], memo)
        for part in self._in_place[index]:
            memo[id(part)].inplace = True
        return variant

    def _labels(self) -> list[str]:
        return list(self.values)
