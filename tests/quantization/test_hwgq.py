"""HWGQ against its formula, and in the layers that use it."""

import nni
import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace

from quantnas_ext.errors import InputError
from quantnas_ext.nn import MutableQuantLinear
from quantnas_ext.quantization import (
    HWGQActivationQuantizer,
    LSQActivationQuantizer,
    QuantConv2d,
    QuantLinear,
    reset_steps,
    set_activation_quantizer,
)
from quantnas_ext.search.strategy import QuantNAS

STEPS = {2: 0.6356, 3: 0.3721, 4: 0.2131, 8: 0.0203}


@pytest.mark.parametrize("bits", STEPS)
def test_values_are_the_formulas_and_the_gradient_passes_within_the_range_only(bits: int) -> None:
    step, largest = STEPS[bits], 2**bits - 1
    ratios = [-2.7, -0.4, 0.3, 0.49, 0.51, 1.2, largest - 0.6, largest - 0.1, largest + 0.1, largest + 20]
    x = torch.tensor([ratio * step for ratio in ratios], requires_grad=True)
    upstream = torch.arange(1.0, len(ratios) + 1)
    quantizer = HWGQActivationQuantizer(bits)
    y = quantizer(x)
    expected = [round(min(max(ratio, 0), largest)) * step for ratio in ratios]
    torch.testing.assert_close(y, torch.tensor(expected))
    y.backward(upstream)
    inside = torch.tensor([0 < ratio < largest for ratio in ratios])
    assert x.grad is not None and torch.equal(x.grad, upstream * inside)
    assert not quantizer.state_dict() and not list(quantizer.parameters())


@pytest.mark.parametrize("layer_class", [QuantConv2d, QuantLinear])
def test_the_bias_lies_on_the_grid_of_both_steps(layer_class: type) -> None:
    shape = (3, 4, 1) if layer_class is QuantConv2d else (3, 4)
    layer = layer_class(*shape, bits=4, signed=False, activation_quantizer="hwgq")
    _, _, bias = layer.operands(torch.rand(2, 3, 5, 5) if layer_class is QuantConv2d else torch.rand(2, 3))
    grid = layer.weight_quantizer.step.flatten() * 0.2131
    torch.testing.assert_close(bias, (layer.bias / grid).round() * grid)
    assert not torch.equal(bias, layer.bias)


def test_only_unsigned_layers_change_and_they_compute_the_same_after_a_reset() -> None:
    model = torch.nn.Sequential(
        QuantConv2d(3, 4, 1, bits="w8a4", signed=True),
        torch.nn.ReLU(),
        QuantConv2d(4, 4, 1, bits="w8a4", signed=False),
        torch.nn.ReLU(),
        QuantConv2d(4, 4, 1, bits="w8a32", signed=False),
    )
    set_activation_quantizer(model, "hwgq")
    kinds = [type(layer.activation_quantizer) for layer in model if isinstance(layer, QuantConv2d)]
    assert kinds == [LSQActivationQuantizer, HWGQActivationQuantizer, torch.nn.Identity]
    x = torch.randn(2, 3, 5, 5)
    before = model(x)
    reset_steps(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [5, 6, 7, 16])
def test_widths_without_a_step_and_signed_inputs_are_refused(bits: int) -> None:
    message = f"no step for activations of {bits} bits; use one of 2, 3, 4, 8 bits, or 32"
    with pytest.raises(InputError, match=message):
        QuantConv2d(3, 3, 1, bits=bits, signed=False, activation_quantizer="hwgq")
    with pytest.raises(InputError, match="inputs that are never negative"):
        QuantLinear(3, 3, bits=4, activation_quantizer="hwgq")

    class Space(ModelSpace):
        def __init__(self, **arguments: str) -> None:
            super().__init__()
            self.layer = MutableQuantLinear(3, 3, bits=nni.choice("bits", [4, bits]), signed=False, **arguments)

    space = Space()
    with pytest.raises(InputError, match=message):
        set_activation_quantizer(space, "hwgq")
    assert type(space.freeze({"bits": bits}).layer.activation_quantizer) is LSQActivationQuantizer
    with pytest.raises(InputError, match=message):  # a layer is built at its first precision only
        QuantNAS().mutate_model(Space(activation_quantizer="hwgq"))
