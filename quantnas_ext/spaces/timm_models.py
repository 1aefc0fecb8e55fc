"""Networks of the timm library as model spaces of their precisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import current_model
from torch import Tensor, nn

from quantnas_ext.arguments import flag, shape, whole_number
from quantnas_ext.conversion.conversion import quantize
from quantnas_ext.errors import InputError, shown, unknown_name
from quantnas_ext.files.paths import is_file, seen_from

_LARGEST_PROBE = 128  # pixels a side of the image on which signs are observed, where a model takes any size


class TimmSpace(ModelSpace):
    """A network of timm whose convolutions and linear layers choose their precision; ``timm`` among the named spaces.

    Args:
        model: timm's name of the network, such as ``"resnet18"``.
        bits: precisions that every layer offers, see ``quantize``.
        num_classes: of the classifier; None for the network's own, 0 for none.
        in_chans: channels of the input.
        input_size: height and width, pixels, where the network has to be built for one (as ``img_size``); None for its
            own.
        pretrained: whether to start from timm's weights, which timm downloads or finds in its cache.
        checkpoint: a file of weights to start from (``.safetensors``, or ``.pth`` that torch reads without unpickling
            anything but tensors).
        skip, fixed, share: see ``quantize``; ``share`` as text only.

    Attributes:
        model: the network.
        report: what was converted, and what was left and why.

    Raises:
        InputError: for a name that timm does not have, weights that cannot be had or do not fit, and as ``quantize``.

    In ``model_context``, as where an architecture file is built, weights are new.
    """

    CANDIDATE_ARGUMENTS = ("pretrained", "checkpoint")

    def __init__(
        self,
        model: str,
        bits: Sequence[int | str | Sequence[int]] = (4, 8),
        num_classes: int | None = None,
        in_chans: int = 3,
        input_size: Sequence[int] | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
        skip: Sequence[str] = (),
        fixed: Mapping[str, int | str | Sequence[int]] | None = None,
        share: str = "layer",
    ) -> None:
        super().__init__()
        import timm

        if not isinstance(model, str) or not timm.is_model(model):
            raise unknown_name("timm model", model, timm.list_models())
        arguments: dict[str, Any] = {"in_chans": whole_number("in_chans", in_chans, least=1)}
        if num_classes is not None:
            arguments["num_classes"] = whole_number("num_classes", num_classes, least=0)
        if input_size is not None:
            arguments["img_size"] = shape("input_size", input_size)
        fresh = current_model() is not None
        network = _network(model, flag("pretrained", pretrained) and not fresh, arguments)
        if checkpoint is not None and not fresh:
            _load(network, checkpoint)
        height, width = input_size or _own_size(network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            probe = torch.randn(1, in_chans, height, width)
        self.report = quantize(network, bits, probe, skip=skip, fixed=fixed, share=share)
        self.model = network

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_chans, H, W]`` to logits ``[N, num_classes]``."""
        return self.model(x)


def from_timm(model: str, bits: Sequence[int | str | Sequence[int]] = (4, 8), **arguments: Any) -> TimmSpace:
    """A network of timm as a model space of its precisions, weights kept: ``from_timm("resnet18", bits=[4, 8])``.

    Args:
        model: timm's name of the network.
        bits: precisions that every layer offers.
        **arguments: further ones of ``TimmSpace``, such as ``pretrained=True`` or ``num_classes=10``.

    Raises:
        InputError: as ``TimmSpace``.
    """
    return TimmSpace(model, bits, **arguments)


def _network(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # timm, its hub and the network's own constructor raise what they like
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        weights = " with its weights; a file of weights can be given as 'checkpoint'" if pretrained else ""
        raise InputError(f"timm cannot make {name!r} of {shown(dict(arguments))}{weights}: {reason}") from error


def _load(network: nn.Module, path: str) -> None:
    from timm.models import load_checkpoint

    file = Path(path)
    if not is_file(file):
        raise InputError(f"file of weights '{path}' does not exist{seen_from(file)}")
    try:
        load_checkpoint(network, str(path), weights_only=True)
    except Exception as error:  # of torch, safetensors, or a mapping of other names and shapes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the weights in '{path}' cannot be loaded into this network: {reason}") from error


def _own_size(network: nn.Module) -> tuple[int, int]:
    """Height and width that a network is made for; smaller ones where it takes any."""
    settings: Any = getattr(network, "pretrained_cfg", {})
    _, height, width = settings.get("input_size", (3, 224, 224))
    if settings.get("fixed_input_size"):
        return int(height), int(width)
    return min(int(height), _LARGEST_PROBE), min(int(width), _LARGEST_PROBE)
