"""What an architecture costs, and the expectation of that over a distribution of architectures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from quantnas_ext.arguments import shape
from quantnas_ext.costs.tracing import TracedLayer, trace_layers
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution, Draw
from quantnas_ext.distribution.choices import Context
from quantnas_ext.errors import InputError, shown, unknown_name
from quantnas_ext.quantization import Precision


@dataclass(frozen=True)
class Cost:
    """A cost that is a sum over layers, each with a value for each precision.

    A new cost is one subclass with a ``name`` and a ``layer_cost``, or with ``terms`` of its own. ``register_cost``
    makes it known to configurations; what it is configured with are further fields of the dataclass.

    Attributes:
        name: how configurations, logs and files call it.
        depends_on_input: whether it differs between inputs.
        input_shape: the input for which it is counted, with its batch dimension.

    Raises:
        InputError: for what is no such shape.
    """

    name: ClassVar[str]
    depends_on_input: ClassVar[bool] = True
    input_shape: tuple[int, ...] = (1, 3, 32, 32)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", shape("input_shape", self.input_shape))

    @classmethod
    def configured(cls, input_shape: tuple[int, ...], arguments: Mapping[str, Any]) -> Cost:
        """The cost that a configuration describes.

        Args:
            input_shape: the input for which it is counted.
            arguments: plain values, by the names of the dataclass's further fields.

        Raises:
            InputError: for an unknown or missing argument, or a value that it cannot take.
        """
        known = [field.name for field in fields(cls) if field.name != "input_shape"]
        for name in arguments:
            if name not in known:
                raise unknown_name(f"argument of cost '{cls.name}'", name, known)
        try:
            return cls(input_shape=input_shape, **arguments)
        except (TypeError, ValueError) as error:
            raise InputError(f"cost '{cls.name}' cannot be made from {shown(dict(arguments))}: {error}") from error

    def fingerprint(self) -> dict[str, Any]:
        """What it counts, as plain values: a search goes on only with costs of the same fingerprints."""
        return {"cost": self.name, "input": list(self.input_shape)}

    def layer_cost(self, layer: TracedLayer, precision: Precision) -> float:
        """Cost of one layer at one precision."""
        raise NotImplementedError(f"{type(self).__name__} has no layer_cost")

    def terms(self, model: nn.Module) -> dict[frozenset[Context], float]:
        """The cost as a polynomial: for each set of choices ``(label, value)`` what they cost together.

        The empty set holds what is always there. The cost of an architecture is the sum over the sets it contains.

        Raises:
            InputError: when ``model`` cannot be traced (see ``trace_layers``).
        """
        terms: dict[frozenset[Context], float] = {}
        for layer in trace_layers(model, self.input_shape):
            for chosen, precision in layer.precisions.items():
                choices, cost = layer.context | chosen, self.layer_cost(layer, precision)
                # A choice within a candidate of its own label never takes a second value.
                if cost and len({label for label, _ in choices}) == len(choices):
                    terms[choices] = terms.get(choices, 0.0) + cost
        return terms

    def of_network(self, network: nn.Module) -> float:
        """Cost of a concrete network (no choices left)."""
        return sum(self.terms(network).values())


COSTS: dict[str, type[Cost]] = {}
"""The costs that a configuration can name."""

_CostType = TypeVar("_CostType", bound=type[Cost])


def register_cost(cost: _CostType) -> _CostType:
    """Class decorator: make a cost known by its ``name``.

    Raises:
        InputError: when it is no cost, has no name, or another one has it.
    """
    name = getattr(cost, "name", None)
    if not (isinstance(cost, type) and issubclass(cost, Cost) and isinstance(name, str) and name):
        raise InputError(f"{shown(cost)} cannot be registered; give a subclass of Cost whose 'name' is a text")
    if COSTS.setdefault(name, cost) is not cost:
        raise InputError(f"{cost.__name__} cannot be cost '{name}', as {COSTS[name].__name__} is; name it differently")
    return cost


@register_cost
@dataclass(frozen=True)
class BitOps(Cost):
    """Bit operations: multiply-accumulates times weight bits times activation bits, summed over all layers.

    Source: Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024). Its figures are for a 32x32 input.
    A layer that is not quantized counts with 32 x 32 bits.
    """

    name = "bitops"

    def layer_cost(self, layer: TracedLayer, precision: Precision) -> float:
        """``MACs * weight bits * activation bits``."""
        return float(layer.macs * precision.weight_bits * precision.activation_bits)


@register_cost
@dataclass(frozen=True)
class ParameterBytes(Cost):
    """Bytes of the parameters: weights at their bits; all else at four bytes each.

    That is biases, normalisation with its running mean and variance, and what quantizers store: learned steps, but no
    fixed ones (HWGQ).
    """

    name = "bytes"
    depends_on_input = False

    def layer_cost(self, layer: TracedLayer, precision: Precision) -> float:
        """Bytes of one layer."""
        numbers = layer.other_parameters + layer.quantizer_numbers.get(precision, 0)
        return layer.weights * precision.weight_bits / 8 + 4.0 * numbers


class ExpectedCost(nn.Module):
    """Expectation of a cost over the architectures of a distribution, exact, with exact gradients.

    Args:
        cost: what to count.
        model: the space or supernet.
        distribution: over the choices of ``model``.
    """

    index: Tensor
    coefficients: Tensor

    def __init__(self, cost: Cost, model: nn.Module, distribution: ArchitectureDistribution) -> None:
        super().__init__()
        self.cost = cost
        self._tree = distribution.tree
        self.terms = cost.terms(model)
        columns = max(len(choice.values) for choice in distribution.tree)
        values = {choice.label: choice.values for choice in distribution.tree}
        one = len(distribution.tree) * columns  # an entry behind the table that holds 1: sets of few choices are padded
        width = max((len(choices) for choices in self.terms), default=0) or 1
        index = torch.full((len(self.terms), width), one)
        for row, choices in enumerate(self.terms):
            # In one order in every process, as products of floats depend on it; that of a set does not last.
            for column, (label, value) in enumerate(sorted(choices, key=str)):
                index[row, column] = distribution.rows[label] * columns + values[label].index(value)
        self.register_buffer("index", index, persistent=False)
        self.register_buffer(
            "coefficients", torch.tensor(list(self.terms.values()), dtype=torch.float64), persistent=False
        )

    def forward(self, draw: Draw) -> Tensor:
        """Expected cost under a draw: a float64 scalar, differentiable in the draw's probabilities."""
        table = torch.cat([draw.expectation.flatten(), draw.expectation.new_ones(1)])
        return table[self.index].double().prod(dim=1) @ self.coefficients

    def of(self, sample: Mapping[str, Any]) -> float:
        """Cost of one architecture; labels that do not matter for it may be missing.

        Raises:
            InputError: when a label that matters is missing or has an unknown value.
        """
        return sample_cost(self.terms, self._tree.complete(sample))


def sample_cost(terms: Mapping[frozenset[Context], float], sample: Mapping[str, Any]) -> float:
    """Cost of one architecture from a cost's ``terms``, for a sample that ``ChoiceTree.complete`` has checked."""
    return sum(
        cost
        for choices, cost in terms.items()
        if all(label in sample and sample[label] == value for label, value in choices)
    )
