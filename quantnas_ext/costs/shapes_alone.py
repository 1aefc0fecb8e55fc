"""Copies of models that compute shapes alone."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from nni.mutable import Mutable
from torch import nn

from quantnas_ext.quantization import Precision

CONTAINERS, PLAIN = {dict, OrderedDict, set, list}, {type(None), bool, int, float, str, Precision}
"""Types of what is quickly copied: where it is empty, and by sharing it."""


def without_values(model: nn.Module) -> nn.Module:
    """A copy of a model whose tensors are on the ``meta`` device, so that it computes shapes only.

    As ``copy.deepcopy``, which takes longer than the run does: what is empty or never changes is most of a large space.
    """
    modules = list(model.modules())
    copies: dict[int, Any] = {id(module): object.__new__(type(module)) for module in modules}
    for tensor in (
        tensor for module in modules for of in (module._parameters, module._buffers) for tensor in of.values()
    ):
        if tensor is not None and id(tensor) not in copies:
            empty = torch.empty_like(tensor, device="meta")
            is_parameter = isinstance(tensor, nn.Parameter)
            copies[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    for module in modules:
        for value in vars(module).get("trace_kwargs", {}).values():
            if isinstance(value, Mutable) and not isinstance(value, nn.Module):
                copies[id(value)] = value
        twin = vars(copies[id(module)])
        twin.update(vars(module))
        for name, value in vars(module).items():
            kind = type(value)
            if kind in CONTAINERS and not value:
                twin[name] = kind()
            elif name in ("_modules", "_parameters", "_buffers"):
                twin[name] = {key: copies.get(id(item)) for key, item in value.items()}
            elif kind not in PLAIN and not (kind is tuple and PLAIN.issuperset(map(type, value))):
                twin[name] = copies[id(value)] if id(value) in copies else copy.deepcopy(value, copies)
    return copies[id(model)]
