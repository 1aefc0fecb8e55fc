"""Candidate operations: shapes, multiply-accumulates by an independent counter, errors."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nni.mutable import frozen_context
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.cost import BitOps
from quantnas_ext.errors import InputError
from quantnas_ext.nn import OPERATIONS, ChoiceBlock, operation_block, operations, register_operation, relu_conv
from quantnas_ext.nn.operations import WITHOUT_PRECISION
from quantnas_ext.quantization import QuantConv2d
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import build_space

WIDTH = 24
# Multiply-accumulates for one position, from 12 to 24 channels (skip_connect: from 24 to 24), width 24.
C_IN, C_OUT = 12, 24
MACS = {
    "skip_connect": 0,
    **{f"conv_{k}x{k}": C_IN * C_OUT * k * k for k in (1, 3, 5)},
    **{f"conv_{k}x{k}_g{g}": C_IN * C_OUT * k * k // g for k in (1, 3, 5) for g in (2, 3)},
    **{f"conv_{k}x{k}_dw": C_OUT * k * k for k in (1, 3, 5)},
    "conv_3x3_d2": C_IN * C_OUT * 9,
    "conv_3x3_g3_d2": C_IN * C_OUT * 9 // 3,
    **{f"fac_{k}x{k}": C_IN * WIDTH * k + WIDTH * C_OUT * k for k in (3, 5)},
    **{f"dws_{k}x{k}": C_IN * k * k + C_IN * C_OUT for k in (3, 5)},
    **{f"growth{r}_{k}x{k}": (C_IN + C_OUT) * r * WIDTH * k * k for r in (1, 2) for k in (1, 3, 5)},
    **{
        f"decenc_{k}x{k}_{r}{suffix}": (C_IN + WIDTH // r + C_OUT) * (WIDTH // r) * k * k // groups
        for k in (3, 5)
        for r in (2, 4, 8)
        for suffix, groups in (("", 1), ("_g3", 3))
    },
    **{f"increase_{k}x{k}": 2 * C_IN * C_OUT * k * k for k in (1, 3, 5)},
    **{f"decrease_{k}x{k}": C_IN * (C_OUT // 2) * k * k for k in (1, 3, 5)},
}
CONVOLUTIONS = {"fac": 2, "dws": 2, "growth1": 2, "growth2": 2, "decenc": 3, "skip": 0}


def test_the_table_of_this_test_covers_every_operation() -> None:
    assert set(MACS) == set(OPERATIONS)


@pytest.mark.parametrize("name", MACS)
def test_an_operation_keeps_the_size_and_costs_what_its_definition_says(name: str) -> None:
    in_channels = C_OUT if name == "skip_connect" else C_IN
    operation = OPERATIONS[name](in_channels, C_OUT, width=WIDTH, bits=8).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = operation(torch.rand(1, in_channels, 7, 9) - 0.5)
    assert output.shape == (1, C_OUT, 7, 9)
    assert counter.get_total_flops() == 2 * 63 * MACS[name]


@pytest.mark.parametrize("name", MACS)
def test_a_candidate_has_one_precision_and_each_of_its_convolutions_follows_a_relu(name: str) -> None:
    with frozen_context():
        block = operation_block("b", [name], C_OUT, C_OUT, width=WIDTH, bits=["w4a8", "w2a4"])
    labels = [f"b__{name}__bits"] if name not in WITHOUT_PRECISION else []
    assert sorted(block.simplify()) == sorted(["b", *labels])
    frozen = block.freeze({"b": name, **dict.fromkeys(labels, "w2a4")})
    layers = list(frozen.children())
    convolutions = [layer for layer in layers if isinstance(layer, QuantConv2d)]
    assert len(convolutions) == CONVOLUTIONS.get(name.split("_")[0], 1)
    assert {str(layer.precision) for layer in convolutions} <= {"w2a4"}
    for before, layer in zip(layers, layers[1:], strict=False):
        if isinstance(layer, QuantConv2d):
            assert isinstance(before, nn.ReLU) and layer.bias is None and not layer.activation_quantizer.signed


def test_repeating_channels_repeats_the_input_before_and_the_output_behind_the_convolution() -> None:
    x = torch.rand(1, 4, 5, 5) - 0.5
    increase = OPERATIONS["increase_3x3"](4, 6, width=4, bits=32)
    expected = F.conv2d(torch.cat([x, x], 1).relu(), increase[-1].weight, padding=1)
    torch.testing.assert_close(increase(x), expected)
    decrease = OPERATIONS["decrease_3x3"](4, 6, width=4, bits=32)
    half = F.conv2d(x.relu(), decrease[1].weight, padding=1)
    torch.testing.assert_close(decrease(x), torch.cat([half, half], 1))
    x = torch.rand(1, 4, 5, 5) - 0.5
    assert torch.equal(OPERATIONS["skip_connect"](4, 4, width=4, bits=8)(x), x)


def test_a_candidate_added_by_a_user_is_searched_counted_and_built_in_a_space(
    monkeypatch: pytest.MonkeyPatch, independent_bitops: Callable[..., float]
) -> None:
    monkeypatch.setattr(operations, "OPERATIONS", copy.copy(OPERATIONS))

    @register_operation("squeeze_3x3")
    def squeeze(in_channels: int, out_channels: int, *, width: int, bits: Any) -> nn.Module:
        layers = relu_conv(in_channels, width // 2, (3, 3), bits=bits)
        return nn.Sequential(*layers, *relu_conv(width // 2, out_channels, (1, 1), bits=bits))

    for name in ("sr_basic", "sr_rfdn"):
        arguments: dict[str, Any] = {"scale": 2, "width": 12, "cells": 1, "bits": ["w2a4", 8]}
        arguments |= {"body": ["squeeze_3x3", "conv_1x1"], "upsample": ["conv_1x1"], "tail": ["conv_1x1"]}
        strategy = QuantNAS()
        space = build_space(name, arguments)
        strategy.mutate_model(space)
        strategy.distribution.draw()
        space(torch.rand(1, 3, 16, 16)).mean().backward()
        logits = strategy.distribution.logits
        assert logits["body_1"].grad is not None and logits["body_1__squeeze_3x3__bits"].grad is not None
        sample = strategy.distribution.most_likely()
        sample |= {"body_1": "squeeze_3x3", "body_1__squeeze_3x3__bits": "w2a4"}
        network = Architecture(name, arguments, sample).build()
        assert BitOps((1, 3, 16, 16)).of_network(network) == independent_bitops(network, (1, 3, 16, 16)) > 0


def test_impossible_blocks_are_refused_with_what_would_be_right() -> None:
    def block(
        *operations: str, channels: int = 6, out_channels: int | None = None, width: int = 6, bits: Any = (4, 8)
    ) -> None:
        with frozen_context():
            operation_block("b", operations, channels, out_channels or channels, width=width, bits=bits)

    with pytest.raises(InputError, match="did you mean 'conv_3x3'"):
        block("conv3x3")
    with pytest.raises(InputError, match="no candidate operations"):
        block()
    with pytest.raises(InputError, match="twice"):
        block("conv_3x3", "conv_3x3")
    with pytest.raises(InputError, match="multiple of 3"):
        block("conv_3x3_g3", channels=4)
    with pytest.raises(InputError, match="multiple of 6"):
        block("decenc_3x3_2_g3", channels=9, width=5)
    with pytest.raises(InputError, match="'decenc_3x3_8' of block 'b'.* 6 channels cannot be divided by 8"):
        block("decenc_3x3_8")
    with pytest.raises(InputError, match="5 channels cannot be halved"):
        block("decrease_1x1", channels=5)
    with pytest.raises(InputError, match="identity cannot lead from 6 to 12"):
        block("skip_connect", out_channels=12)
    with pytest.raises(InputError, match="depthwise convolution cannot lead from 6 to 9"):
        block("conv_3x3_dw", out_channels=9)
    with pytest.raises(InputError, match="precisions is empty"):
        block("conv_3x3", bits=[])
    with pytest.raises(InputError, match="exists already"):
        register_operation("conv_3x3")
    with pytest.raises(InputError, match="cannot name"):
        register_operation("my.conv")


def test_a_candidate_that_is_a_module_already_is_named() -> None:
    with pytest.raises(InputError, match="'plain' of block 'body' is a module; give a function"):
        ChoiceBlock({"plain": nn.Identity()}, label="body")  # type: ignore[dict-item]
