"""Model spaces by name, as configurations and architecture files call them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.errors import InputError, shown, unknown_name
from quantnas_ext.spaces.sr_basic import SRBasicSpace
from quantnas_ext.spaces.sr_rfdn import SRRFDNSpace

SPACES: dict[str, type[ModelSpace]] = {"sr_basic": SRBasicSpace, "sr_rfdn": SRRFDNSpace}

_Space = TypeVar("_Space", bound=type[ModelSpace])


def register_space(name: str) -> Callable[[_Space], _Space]:
    """Decorator that gives a space a name for configurations, architecture files and weight files.

    A file that names the space can be read wherever the module with the decorated class has been imported. Arguments
    of the space are what YAML holds: numbers, texts, lists. ``quantnas_ext.spaces.contract`` says what it may have.

    Args:
        name: letters, digits and underscores.

    Raises:
        InputError: when the name is taken or is none, or what is decorated is no class of spaces.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{shown(name)} cannot name a space; use letters, digits and underscores, as in my_space")
    if name in SPACES:
        raise InputError(f"a space named {name!r} exists already; choose another name")

    def register(space: _Space) -> _Space:
        if not isinstance(space, type) or not issubclass(space, ModelSpace):
            raise InputError(f"{shown(space)} is not a space; give a class of nni.nas.nn.pytorch.ModelSpace")
        SPACES[name] = space
        return space

    return register


def build_space(name: str, arguments: Mapping[str, Any]) -> ModelSpace:
    """A model space from its name and arguments; inside ``model_context(sample)`` the network of that sample.

    Raises:
        InputError: for an unknown space or argument (the nearest known name is offered), or a value that the space
            cannot take.
    """
    if name not in SPACES:
        raise unknown_name("space", name, SPACES)
    known = argument_names(name)
    for argument in arguments:
        if argument not in known:
            raise unknown_name(f"argument of space {name!r}", argument, known)
    try:
        return SPACES[name](**arguments)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # torch and NNI explain in many lines
        raise InputError(
            f"space {name!r} cannot be built from {shown(dict(arguments))}; check the types and sizes of its arguments"
        ) from error


def argument_names(name: str) -> list[str]:
    """The arguments that a registered space takes."""
    return list(_parameters(name))


def default_arguments(name: str) -> dict[str, Any]:
    """The arguments of a registered space that have a default, with it."""
    return {argument: p.default for argument, p in _parameters(name).items() if p.default is not p.empty}


def pinned_precisions(name: str) -> tuple[str, ...]:
    """Its arguments that fix a precision outside the search, see ``Pinned``."""
    return tuple(getattr(SPACES.get(name), "PINNED_PRECISIONS", ()))


def candidate_arguments(name: str) -> tuple[str, ...]:
    """Its arguments that say what can be chosen, see ``Pinned``."""
    return tuple(getattr(SPACES.get(name), "CANDIDATE_ARGUMENTS", ()))


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    # NNI wraps the __init__ of every class of spaces, that of a class without one once more.
    kinds: list[Any] = [kind for kind in SPACES[name].__mro__ if issubclass(kind, ModelSpace)]
    wrappers = {kind.__init__ for kind in kinds}
    written = next(kind._init_wrapped for kind in kinds if kind._init_wrapped not in wrappers)
    _, *parameters = inspect.signature(written).parameters.items()
    return dict(parameters)
