"""BitOps for NNI: a profiler that its filters, penalties and strategies understand."""

from __future__ import annotations

from typing import Any

from nni.mutable import MutableExpression, Sample
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.profiler import ExpressionProfiler
from nni.nas.space import ExecutableModelSpace

from quantnas_ext.costs.cost import BitOps, sample_cost
from quantnas_ext.distribution.choices import ChoiceTree


class BitOpsProfiler(ExpressionProfiler):
    """Bit operations of any architecture of a space, as an NNI ``ExpressionProfiler``.

    Unlike the profilers that NNI brings, ``profile`` takes samples without the labels of candidates that were not
    chosen, and the models that NNI's ``Filter`` hands to its function. So a limit for any multi-trial strategy is
    ``Chain(strategy, Filter(RangeProfilerFilter(BitOpsProfiler(space, shape), max=2e9)))``.

    Args:
        model_space: the space; it is run once, as a copy.
        input_shape: shape of one input with its batch dimension.

    Raises:
        InputError: when the space cannot be traced (see ``trace_layers``), or has no choices.
    """

    def __init__(self, model_space: ModelSpace, input_shape: tuple[int, ...] = (1, 3, 32, 32)) -> None:
        super().__init__(model_space)
        self._tree = ChoiceTree.of(model_space)
        self.terms = BitOps(input_shape).terms(model_space)
        mutables = model_space.simplify()
        expression: Any = 0.0
        for choices, cost in self.terms.items():
            product: Any = cost
            for label, value in choices:
                indicators = {option: float(option == value) for option in mutables[label].values}
                product = product * MutableExpression.switch_case(mutables[label], indicators)
            expression = expression + product
        self.expression = expression

    def profile(self, sample: Sample | ExecutableModelSpace) -> float:
        """Bit operations of one architecture, given as its choices, or as a model that was frozen with them.

        Raises:
            InputError: when a label that matters is missing or has an unknown value.
        """
        choices = sample.sample or {} if isinstance(sample, ExecutableModelSpace) else sample
        return sample_cost(self.terms, self._tree.complete(choices))
