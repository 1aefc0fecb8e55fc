"""Batch norm folded into the layers before it: nothing else changes, and what cannot be folded is left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn

from quantnas_ext.deriving.batch_norm_folding import fold_batch_norm
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import QuantConv2d, set_quantization


class Mixed(nn.Module):
    """Of four batch norms two are folded: one layer is read twice, one is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.quantized = QuantConv2d(3, 4, 3, padding=1, bias=False, bits=4)
        self.first = nn.BatchNorm2d(4)
        self.read_twice, self.second = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.called_twice, self.third = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.head, self.fourth = nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.read_twice(torch.relu(self.first(self.quantized(x))))
        y = self.second(y) + y
        y = self.third(self.called_twice(torch.relu(y))) + self.called_twice(y)
        return self.fourth(self.head(y.mean((2, 3))))


def trained(network: nn.Module) -> nn.Module:
    """Batch norms as after a training."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return network.eval()


def test_what_can_be_folded_is_and_all_else_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    network, x = trained(Mixed()), torch.rand(2, 3, 6, 6)
    set_quantization(network, False)
    before, weight = network(x), network.quantized.weight.detach().clone()
    kept = copy.deepcopy(network.second.state_dict())
    assert fold_batch_norm(network, x) == ["first", "fourth"]
    torch.testing.assert_close(network(x), before, rtol=1e-5, atol=1e-5)
    assert isinstance(network.first, nn.Identity) and isinstance(network.third, nn.BatchNorm2d)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in network.second.state_dict().items())
    assert network.quantized.bias is not None and not torch.equal(network.quantized.weight, weight)
    fresh = QuantConv2d(3, 4, 3, bits=4)  # a step started from the folded weight
    fresh.weight.data.copy_(network.quantized.weight.data)
    fresh.reset_steps()
    for name, tensor in fresh.weight_quantizer.state_dict().items():
        assert torch.equal(network.quantized.weight_quantizer.state_dict()[name], tensor)
    assert fold_batch_norm(network, x) == [] and not network.training
    with pytest.raises(InputError, match=r"cannot run an example input of shape \[2, 4, 6, 6\]"):
        fold_batch_norm(network, torch.rand(2, 4, 6, 6))


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_networks_of_timm_lose_every_batch_norm_and_keep_their_activations(name: str) -> None:
    torch.manual_seed(0)
    network: Any = trained(timm.create_model(name, num_classes=4))
    x = torch.rand(1, 3, 32, 32)
    norms = [path for path, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    before = network(x)
    assert sorted(fold_batch_norm(network, x)) == sorted(norms)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-4 * float(before.detach().abs().max()))
