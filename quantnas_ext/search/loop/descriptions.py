"""What a search is told apart by: its loss, its data and its network as plain values, whatever they are in Python.

Two searches of which these are equal give the same result, so a checkpoint of the one goes on in the other. Where
things lie (folders, modules of a script) does not count, only what they are.
"""

from __future__ import annotations

import ast
import contextlib
import enum
import functools
import hashlib
import inspect
import json
import os
import sysconfig
import textwrap
import types
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from quantnas_ext.search.loop.phases import same_random_numbers

SAMPLES = 16
"""Samples of a dataset that are looked at, evenly spread over it."""

DEEPEST = 5
"""Objects within objects that are looked into."""

DIGEST = "sha256:"
"""How digests begin, which say nothing to a reader."""

_LIBRARIES = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[2]), "<frozen")
_OF_MODULES = frozenset(vars(nn.Module()))


def describe(value: Any) -> Any:
    """An object as plain values: equal for objects that do the same, in this process and in others.

    Functions are what they compute (their source without comments, constants and closures); those of installed
    libraries, and classes of these, are their names. Objects are their class and attributes, modules with a digest of
    their state. Paths are their last part.
    """
    return _Description().of(value, DEEPEST)


def digest(value: Any) -> str:
    """A digest of an object as ``describe`` has it."""
    text = json.dumps(describe(value), sort_keys=True)
    return DIGEST + hashlib.sha256(text.encode()).hexdigest()


def describe_network(model: nn.Module) -> dict[str, str]:
    """Digests of a network's layers (their places, classes and settings) and of its state's names, shapes and types."""
    layers = [[name, type(module).__qualname__, module.extra_repr()] for name, module in model.named_modules()]
    state = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in model.state_dict().items()]
    return {"layers": digest(layers), "shapes": digest(state)}


def describe_dataset(dataset: Dataset[Any], workers: int = 0) -> dict[str, Any]:
    """Length of a dataset and a digest of some of its samples, with what the dataset says of itself.

    The samples are those of epoch 0, read in a worker where there are some (a dataset may open its files where it is
    first read), with random numbers that come back afterwards. Of samples that are others every time only kinds and
    shapes count. A dataset with a method ``fingerprint`` adds what that returns, and is taken at its word that its
    samples are a function of epoch and index.

    Args:
        dataset: of known length; one with ``set_epoch`` is told epoch 0.
        workers: processes that load data.
    """
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(0)
    length = len(dataset)  # type: ignore[arg-type]
    count = min(length, SAMPLES)
    indices = [index * length // count for index in range(count)]
    samples = _read(dataset, indices, workers)
    found: dict[str, Any] = {"length": length}
    if hasattr(dataset, "fingerprint"):
        found["files"] = describe(dataset.fingerprint())
    elif digest(_read(dataset, indices, workers)) != digest(samples):
        samples = [_outline(sample) for sample in samples]
    return found | {"samples": digest(samples)}


class _Description:
    """Goes through an object; what it meets again is only named, so that it comes to an end."""

    def __init__(self) -> None:
        self._met: set[int] = set()

    def of(self, value: Any, depth: int) -> Any:
        """A value as plain ones, looked into no deeper than ``depth``."""
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, str):
            return PurePath(value).name if os.sep in value else value
        if isinstance(value, (float, complex, bytes, torch.dtype, torch.memory_format)):
            return repr(value)  # as text, since JSON has no infinity
        if isinstance(value, enum.Enum):
            return f"{type(value).__qualname__}.{value.name}"
        if isinstance(value, os.PathLike):
            return PurePath(os.fspath(value)).name
        if isinstance(value, torch.device):
            return value.type
        if isinstance(value, np.ndarray):
            return _array_digest(str(value.dtype), value.shape, np.ascontiguousarray(value).tobytes())
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            return _array_digest(str(value.dtype), value.shape, flat.numpy().tobytes())
        if isinstance(value, type):
            return _class_name(value)
        return self._composite(value, depth - 1) if depth else _class_name(type(value))

    def _composite(self, value: Any, depth: int) -> Any:
        """What holds other values."""
        if isinstance(value, Mapping):
            return {str(self.of(key, depth)): self.of(item, depth) for key, item in value.items()}
        if isinstance(value, (set, frozenset)):
            return sorted((self.of(item, depth) for item in value), key=repr)
        if isinstance(value, (list, tuple)):
            return [self.of(item, depth) for item in value]
        if isinstance(value, functools.partial):
            return [self.of(part, depth) for part in (value.func, value.args, value.keywords)]
        if isinstance(value, types.MethodType):
            return [value.__func__.__qualname__, self.of(value.__self__, depth)]
        if isinstance(value, types.FunctionType):
            return self._function(value, depth)
        if isinstance(value, (types.BuiltinFunctionType, types.ModuleType)):
            return f"{getattr(value, '__module__', None) or ''}.{value.__name__}"
        if id(value) in self._met:
            return _class_name(type(value))
        self._met.add(id(value))
        hidden = _OF_MODULES if isinstance(value, nn.Module) else ()
        own = {name: item for name, item in getattr(value, "__dict__", {}).items() if name not in hidden}
        attributes = {name: self.of(item, depth) for name, item in own.items()}
        if not isinstance(value, nn.Module):
            return {"class": _class(value, "__call__"), **attributes}
        if tensors := {**value._parameters, **value._buffers}:
            attributes["state"] = digest(tensors)
        if children := {name: self.of(child, depth) for name, child in value.named_children()}:
            attributes["children"] = children
        return {"class": _class(value, "forward"), **attributes}

    def _function(self, function: types.FunctionType, depth: int) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "defaults": function.__defaults__,
            "keywords": function.__kwdefaults__,
            "closure": [cell.cell_contents for cell in function.__closure__ or () if not _is_empty(cell)],
        }
        if not _is_of_library(function.__code__.co_filename):
            # Numbers and names of its module that it reads: a weight written above it, for one.
            parts["constants"] = {
                name: function.__globals__[name]
                for name in function.__code__.co_names
                if isinstance(function.__globals__.get(name), (bool, int, float, str))
            }
        return {"function": _code(function), **{name: self.of(part, depth) for name, part in parts.items() if part}}


def _class(value: Any, method: str) -> Any:
    """Name of an object's class, and what its call computes where no library says that."""
    call = getattr(type(value), method, None)
    if isinstance(call, types.FunctionType) and not _is_of_library(call.__code__.co_filename):
        return [_class_name(type(value)), _code(call)]
    return _class_name(type(value))


def _class_name(kind: type) -> str:
    """Name of a class; its module counts for libraries only, as a script may be run or imported."""
    module = kind.__module__
    file = getattr(inspect.sys.modules.get(module), "__file__", None)  # type: ignore[attr-defined]
    return f"{module}.{kind.__qualname__}" if file is None or _is_of_library(file) else kind.__qualname__


def _code(function: types.FunctionType) -> list[str]:
    """Name of a function, and a digest of what it computes where it is of no library."""
    code = function.__code__
    if _is_of_library(code.co_filename):
        return [f"{function.__module__}.{function.__qualname__}"]
    return [function.__name__, DIGEST + hashlib.sha256(_source(function).encode()).hexdigest()]


def _source(function: types.FunctionType) -> str:
    """A function's text without comments and layout; its compiled form where there is no such text (lambdas)."""
    with contextlib.suppress(OSError, TypeError, SyntaxError):
        (statement,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        if isinstance(statement, ast.FunctionDef):
            return ast.unparse(statement)
    return _compiled(function.__code__)


def _compiled(code: types.CodeType) -> str:
    constants = [_compiled(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts]
    return repr((code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars))


def _is_of_library(file: str) -> bool:
    return file.startswith(_LIBRARIES) or not {"site-packages", "dist-packages"}.isdisjoint(PurePath(file).parts)


def _is_empty(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:  # a name that has no value yet
        return True


def _array_digest(kind: str, shape: Sequence[int], content: bytes) -> str:
    found = hashlib.sha256(f"{kind} {tuple(shape)}".encode())
    found.update(content)
    return DIGEST + found.hexdigest()


def _outline(sample: Any) -> Any:
    """A sample's kinds and shapes, for one whose content is another every time."""
    if isinstance(sample, (Tensor, np.ndarray)):
        return [str(sample.dtype), list(sample.shape)]
    if isinstance(sample, (list, tuple)):
        return [_outline(item) for item in sample]
    if isinstance(sample, Mapping):
        return {str(name): _outline(item) for name, item in sample.items()}
    return type(sample).__qualname__


def _read(dataset: Dataset[Any], indices: list[int], workers: int) -> list[Any]:
    """Some samples, in a worker where there are some, with fixed random numbers."""
    with same_random_numbers():
        set_seed(0)
        if not workers:
            return [dataset[index] for index in indices]
        generator = torch.Generator().manual_seed(0)
        loader: DataLoader[Any] = DataLoader(
            dataset, None, sampler=indices, num_workers=1, collate_fn=_as_it_is, generator=generator
        )
        return list(loader)


def _as_it_is(sample: Any) -> Any:
    return sample
