"""Candidate operations: shapes, multiply-accumulates by an independent counter, errors."""

import nni
import pytest
import torch
from nni.mutable import frozen_context
from torch.utils.flop_counter import FlopCounterMode

from quantnas_ext.errors import InputError
from quantnas_ext.nn import OPERATIONS, operation_block, register_operation
from quantnas_ext.quantization import QuantConv2d

WIDTH = 6
MACS = {  # for one position, 6 to 12 channels
    **{f"conv_{k}x{k}": 6 * 12 * k * k for k in (1, 3, 5)},
    **{f"conv_{k}x{k}_g{g}": 6 * 12 * k * k // g for k in (1, 3, 5) for g in (2, 3)},
    **{f"fac_{k}x{k}": 6 * WIDTH * k + WIDTH * 12 * k for k in (3, 5)},
    "conv_3x3_d2": 6 * 12 * 9,
    "conv_3x3_g3_d2": 6 * 12 * 9 // 3,
}


def test_the_table_of_this_test_covers_every_operation() -> None:
    assert set(MACS) == set(OPERATIONS)


@pytest.mark.parametrize("name", MACS)
def test_an_operation_keeps_the_size_and_costs_what_its_definition_says(name: str) -> None:
    operation = OPERATIONS[name](6, 12, width=WIDTH, bits=8).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = operation(torch.rand(1, 6, 7, 9) - 0.5)
    assert output.shape == (1, 12, 7, 9)
    assert counter.get_total_flops() == 2 * 63 * MACS[name]
    assert all(layer.bias is None for layer in operation.modules() if isinstance(layer, QuantConv2d))


def test_every_convolution_of_an_operation_has_its_one_precision_and_unsigned_inputs() -> None:
    with frozen_context():
        operation = OPERATIONS["fac_3x3"](6, 6, width=WIDTH, bits=nni.choice("bits", ["w4a8", "w2a4"]))
    assert len(set(map(str, (m.precision for m in operation.modules() if isinstance(m, QuantConv2d))))) == 1
    frozen = [layer.freeze({"bits": "w2a4"}) for layer in operation if hasattr(layer, "freeze")]
    assert [str(layer.precision) for layer in frozen] == ["w2a4", "w2a4"]
    assert not any(layer.activation_quantizer.signed for layer in frozen)


def test_impossible_blocks_are_refused_with_what_would_be_right() -> None:
    def block(*operations: str, channels: int = 6, bits: list[int] | None = None) -> None:
        with frozen_context():
            operation_block("b", operations, channels, channels, width=6, bits=[4, 8] if bits is None else bits)

    with pytest.raises(InputError, match="did you mean 'conv_3x3'"):
        block("conv3x3")
    with pytest.raises(InputError, match="no candidate operations"):
        block()
    with pytest.raises(InputError, match="twice"):
        block("conv_3x3", "conv_3x3")
    with pytest.raises(InputError, match="multiple of 3"):
        block("conv_3x3_g3", channels=4)
    with pytest.raises(InputError, match="precisions is empty"):
        block("conv_3x3", bits=[])
    with pytest.raises(InputError, match="exists already"):
        register_operation("conv_3x3")
    with pytest.raises(InputError, match="cannot name"):
        register_operation("my.conv")
