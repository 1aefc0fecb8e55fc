"""What a model space has to be, and what it may be besides: the same for every task.

To be searched, a space is an ``nni.nas.nn.pytorch.ModelSpace`` with something to choose: quantized layers whose bits
are an ``nni.choice``, blocks that are a ``LayerChoice`` or a ``ChoiceBlock``, or both. All else is optional. A space
offers it by having the attributes of a protocol below, with no base class, and so do the networks that are built from
it; ``quantnas_ext.spaces.registry`` gives it a name for files. Whoever needs something optional asks its protocol and,
where it is missing, says so in a sentence.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import nn

from quantnas_ext.arguments import whole_number
from quantnas_ext.errors import InputError
from quantnas_ext.notices import notice
from quantnas_ext.spaces.diagram import Stage


@runtime_checkable
class Drawn(Protocol):
    """A space of which drawings can be made."""

    def diagram(self) -> list[Stage]:
        """The macro-structure; its blocks are labels of the space's choices outside of all candidates."""
        ...


@runtime_checkable
class Scaled(Protocol):
    """A space of networks that enlarge images.

    Attributes:
        scale: how many times as many pixels a side the output has, a whole number of at least 1.
    """

    scale: int


@runtime_checkable
class SizeChecked(Protocol):
    """A space of networks that refuse small inputs.

    Attributes:
        smallest_side: pixels that either side of an input needs.
    """

    smallest_side: int


class Counted(Protocol):
    """A registered space whose architecture files hold costs.

    Attributes:
        COST_INPUTS: shapes of inputs, with their batch, for which BitOps are counted.
    """

    COST_INPUTS: ClassVar[tuple[tuple[int, ...], ...]]


class Pinned(Protocol):
    """A registered space that says which of its arguments stand for precisions and candidates.

    Its argument ``bits`` lists the precisions of the search, ``activation_quantizer`` names the kind of quantizer. A
    class without the attributes has no such arguments besides.

    Attributes:
        PINNED_PRECISIONS: arguments that fix a precision outside the search; full precision replaces those, too.
        CANDIDATE_ARGUMENTS: arguments that say what can be chosen and so nothing of a network once it is chosen;
            weights fit whatever they are.
    """

    PINNED_PRECISIONS: ClassVar[tuple[str, ...]]
    CANDIDATE_ARGUMENTS: ClassVar[tuple[str, ...]]


def diagram_of(space: nn.Module) -> list[Stage] | None:
    """The macro-structure of a space or network; None, and a notice, where it has none to draw."""
    if isinstance(space, Drawn):
        return space.diagram()
    notice(f"{_name(space)} has no diagram(), so its architecture is not drawn")
    return None


def scale_of(network: nn.Module) -> int:
    """The magnification of a space or network.

    Raises:
        InputError: when it has none, or one that is no whole number.
    """
    scale: Any = network.scale if isinstance(network, Scaled) else None
    try:
        return whole_number("scale", scale, least=1)
    except InputError:
        raise InputError(
            f"{_name(network)} has no scale, which super-resolution data need; set self.scale to a whole number"
        ) from None


def smallest_side(network: nn.Module) -> int:
    """Pixels that either side of an input of a space or network needs, 1 where it does not say."""
    return int(network.smallest_side) if isinstance(network, SizeChecked) else 1


def check_input_side(network: nn.Module, side: int, what: str) -> None:
    """Refuse an input that a network of this space would refuse at its first forward pass.

    Args:
        network: model space, or a network built from one.
        side: the input's smaller side, pixels.
        what: names the input, as it reads at the start of a sentence.

    Raises:
        InputError: when the side is below ``smallest_side(network)``.
    """
    least = smallest_side(network)
    if side < least:
        raise InputError(f"{what} is too small for this network; give at least {least} pixels a side")


def _name(space: nn.Module) -> str:
    return f"the space {type(space).__name__}"
