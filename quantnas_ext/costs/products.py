"""Torch's own count of operations that multiply, fast enough for thousands of small ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_VECTOR_PRODUCTS = {  # the only ones that torch's counter leaves out
    torch.ops.aten.mv: lambda matrix, *_, **__: 2 * math.prod(matrix.shape),
    torch.ops.aten.addmv: lambda _, matrix, *__, **___: 2 * math.prod(matrix.shape),
}


class ProductCounter(TorchDispatchMode):
    """Counts what multiplies while it is entered, as ``torch.utils.flop_counter`` does.

    On the ``meta`` device torch finds the shape of a result in Python, which takes most of a run; here an operation on
    operands of known shapes gives what it gave before.

    Attributes:
        total: floating-point operations so far, two for a multiply-accumulate.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._whole: set[Any] = set()  # operations that do not consist of others
        self._known: dict[Any, tuple[int, tuple[Any, ...], torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        key = None if func.is_view or func._schema.is_mutable else (func, _key(args), _key(kwargs))
        try:
            count, layout, dtype = self._known[key]
        except (KeyError, TypeError):  # also where an operand is no plain value
            return self._run(func, args, kwargs, key)
        self.total += count
        return torch.empty_strided(*layout, dtype=dtype, device="meta")

    def _run(self, func: Any, args: Any, kwargs: Any, key: Any) -> Any:
        formula: Any = _VECTOR_PRODUCTS.get(func._overloadpacket) or flop_registry.get(func._overloadpacket)
        if formula is None and func not in self._whole:
            with self:  # what consists of other operations
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            self._whole.add(func)
        result = func(*args, **kwargs)
        count = formula(*args, **kwargs, out_val=result) if formula else 0
        if key is not None and isinstance(result, Tensor) and result.is_meta:
            self._known[key] = count, (result.shape, result.stride()), result.dtype
        self.total += count
        return result


def _key(value: Any) -> Any:
    """What the shape of a result depends on, of an operand."""
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype) if value.is_meta else value
    if isinstance(value, (list, tuple)):
        return tuple(map(_key, value))
    return tuple((name, _key(item)) for name, item in value.items()) if isinstance(value, dict) else value
