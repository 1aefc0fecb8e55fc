"""Model spaces by name, as configurations and architecture files call them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.errors import InputError, shown, unknown_name
from quantnas_ext.spaces.diagram import Stage
from quantnas_ext.spaces.input_size import check_input_side, smallest_side
from quantnas_ext.spaces.sr_basic import SRBasicSpace
from quantnas_ext.spaces.sr_rfdn import SRRFDNSpace

SPACES: dict[str, type[ModelSpace]] = {"sr_basic": SRBasicSpace, "sr_rfdn": SRRFDNSpace}

__all__ = ["SPACES", "SRBasicSpace", "SRRFDNSpace", "Stage", "build_space", "check_input_side", "smallest_side"]


def build_space(name: str, arguments: Mapping[str, Any]) -> ModelSpace:
    """A model space from its name and arguments; inside ``model_context(sample)`` the network of that sample.

    Raises:
        InputError: for an unknown space or argument (the nearest known name is offered), or a value that the space
            cannot take.
    """
    if name not in SPACES:
        raise unknown_name("space", name, SPACES)
    known = [parameter for parameter in inspect.signature(SPACES[name]._init_wrapped).parameters if parameter != "self"]
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
