"""Additions, products and concatenations as modules: what they compute, and that the spaces have no others."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from quantnas_ext.costs.tracing import trace_layers
from quantnas_ext.nn import Add, Concatenate, Multiply
from quantnas_ext.quantization import set_quantization
from quantnas_ext.quantization.layers import QuantizedLayer
from quantnas_ext.spaces import build_space

JOINS = (Add, Multiply, Concatenate)
SPACES: list[tuple[str, dict[str, Any]]] = [
    ("sr_basic", {"cells": 2, "adq": True, "body_variant": "A", "body": ["fac_3x3"], "skip": ["conv_1x1"]}),
    ("sr_basic", {"cells": 1, "adq": "adadm", "body": ["conv_3x3"], "skip": ["increase_1x1"]}),
    ("sr_rfdn", {"cells": 2, "adq": False, "body": ["conv_3x3"], "distil": ["conv_1x1"]}),
]


class Meetings(TorchFunctionMode):
    """Counts, by the kind of module that is running, where two maps meet outside of quantized layers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.found: list[type[nn.Module]] = []
        self._running: list[nn.Module] = []
        for module in network.modules():
            module.register_forward_pre_hook(lambda module, _: self._running.append(module))
            module.register_forward_hook(lambda *_: self._running.pop() and None)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operands = args[0] if args and isinstance(args[0], (list, tuple)) else args
        maps = {
            id(x) for x in operands if isinstance(x, Tensor) and x.dim() == 4 and x.shape[0] == 3 and x.shape[1] > 1
        }
        scaled = (
            "mul" in (resolve_name(function) or "")
            and len(maps) == 1
            and all(isinstance(x, Tensor) and x.dim() == 4 for x in operands)
        )
        running = self._running[-1] if self._running else None
        if (len(maps) > 1 or scaled) and not isinstance(running, QuantizedLayer):
            self.found.append(type(running))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "arguments"), SPACES)
def test_maps_meet_in_modules_of_their_own_alone(name: str, arguments: dict[str, Any]) -> None:
    network = build_space(name, {**arguments, "scale": 2, "width": 12, "upsample": ["conv_3x3"], "tail": ["conv_1x1"]})
    set_quantization(network, False)
    before = network.state_dict().keys()
    joins = [module for module in network.modules() if isinstance(module, JOINS)]
    with Meetings(network) as meetings:
        network.train()(torch.rand(3, 3, 18, 17))
    assert sorted(map(str, meetings.found)) == sorted(str(type(module)) for module in joins) and len(joins) >= 5
    assert not any(name.rpartition(".")[2] in ("add", "multiply", "concatenate") for name in before)
    assert all(layer.macs for layer in trace_layers(network, (1, 3, 18, 17)) if layer.weights)


def test_they_compute_what_the_operators_do() -> None:
    torch.manual_seed(0)
    x, y, factor = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.randn(2, 1, 1, 1)
    assert torch.equal(Add()(x, y), x + y) and torch.equal(Multiply()(x, factor), x * factor)
    assert torch.equal(Concatenate()(x, y, x), torch.cat([x, y, x], dim=1))
    assert not [*Add().state_dict(), *Multiply().state_dict(), *Concatenate().state_dict()]
