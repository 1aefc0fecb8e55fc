"""Weighted sums of what candidates return: tensors, or tuples, lists and dictionaries of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from quantnas_ext.errors import InputError

# As nni.nas.oneshot's weighted_sum, but containers keep their types and what differs is named.


def scaled(output: Any, factor: Tensor, candidate: str) -> Any:
    """What a candidate returns, times a scalar.

    Args:
        output: a tensor, a number or None, or tuples, lists and dictionaries of these, such as an LSTM's output.
        factor: a scalar, such as the candidate's probability.
        candidate: how a message names the candidate, for example ``"candidate 'lstm' of block 'body'"``.

    Returns:
        The same, with all tensors and numbers multiplied.

    Raises:
        InputError: for anything else, which cannot be summed.
    """
    if isinstance(output, (Tensor, int, float, complex)) and not isinstance(output, bool):
        return factor * output
    if output is None:
        return None
    if isinstance(output, PackedSequence):
        return output._replace(data=factor * output.data)
    if isinstance(output, Mapping):
        return _like(output, {key: scaled(value, factor, candidate) for key, value in output.items()})
    if isinstance(output, (tuple, list)):
        return _like(output, [scaled(value, factor, candidate) for value in output])
    raise InputError(
        f"{candidate} returns {_described(output)}, which cannot be summed with what others return; "
        "return tensors, or tuples, lists or dictionaries of tensors"
    )


def added(total: Any, output: Any, candidate: str) -> Any:
    """The sum of what ``scaled`` gives for several candidates.

    Args:
        total: of the candidates before.
        output: of one more.
        candidate: how a message names that one.

    Raises:
        InputError: when it differs in kind, in its parts or in its shape.
    """
    if type(output) is type(total):
        if isinstance(output, Tensor):
            if output.shape == total.shape:
                return total + output
        elif output is None:
            return None
        elif isinstance(output, PackedSequence):
            if output.data.shape == total.data.shape:
                return total._replace(data=total.data + output.data)
        elif isinstance(output, Mapping):
            if output.keys() == total.keys():
                return _like(total, {key: added(value, output[key], candidate) for key, value in total.items()})
        elif len(output) == len(total):
            return _like(total, [added(a, b, candidate) for a, b in zip(total, output, strict=True)])
    raise InputError(
        f"{candidate} returns {_described(output)} where other candidates return {_described(total)}; "
        "all candidates of a block must return the same kinds and shapes, as a search sums them"
    )


def _like(container: Any, values: Any) -> Any:
    kind: Any = type(container)
    return kind(*values) if hasattr(container, "_fields") else kind(values)


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {list(output.shape)}"
    if isinstance(output, PackedSequence):
        return f"a packed sequence of shape {list(output.data.shape)}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} of {', '.join(map(str, output)) or 'nothing'}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}"
    return "nothing (None)" if output is None else f"a {type(output).__name__}"
