"""Spaces that a search would not search as they say, and what NNI itself gets wrong with them."""

from pathlib import Path

import nni
import nni.trial
import pytest
import torch
from nni.nas.hub.pytorch import DARTS as DartsSpace
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d
from small_searches import search
from torch import nn

from quantnas_ext.errors import InputError
from quantnas_ext.nn import MutableQuantConv2d
from quantnas_ext.search.nni_darts import nni_darts
from quantnas_ext.search.strategy import QuantNAS


class Space(ModelSpace):
    def __init__(self, label: str = "bits", *, twice: bool = False, plain: bool = False) -> None:
        super().__init__()
        self.first: nn.Module = nn.Conv2d(3, 3, 1)
        if plain:
            self.first = LayerChoice({"a": nn.Conv2d(3, 3, 1), "b": nn.Conv2d(3, 3, 3, padding=1)}, label=label)
        else:
            self.first = MutableQuantConv2d(3, 3, 1, bits=nni.choice(label, [4, 8]))
        self.second = self.first if twice else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_a_searched_module_in_two_places_is_refused_and_left_as_it_is() -> None:
    for plain in (False, True):
        space = Space(twice=True, plain=plain)
        with pytest.raises(InputError, match="stands in 2 places, 'first' and 'second'"):
            QuantNAS().mutate_model(space)
        assert space.first is space.second and not hasattr(space.first, "draw")


@pytest.mark.parametrize("label", ["block.bits", "keys"])
def test_a_label_that_no_parameter_can_have_is_a_sentence(label: str) -> None:
    with pytest.raises(InputError, match=f"cannot be labelled '{label}'"):
        QuantNAS().mutate_model(Space(label))


def test_nnis_cells_are_refused_as_they_choose_by_logits_of_their_own() -> None:
    space = DartsSpace(width=4, num_cells=3, dataset="cifar")
    with pytest.raises(InputError, match="is an NNI Cell"):
        QuantNAS().check(space)


def test_a_space_without_precisions_is_searched_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    QuantNAS(quantization="none").mutate_model(Space(plain=True))
    assert not capsys.readouterr().err
    QuantNAS().mutate_model(Space(plain=True))
    assert "2 layers (such as 'first.a') are searched at 32 bits" in capsys.readouterr().err


def test_a_convolution_of_searched_width_without_a_bias_keeps_its_weights_when_it_is_frozen() -> None:
    class Wide(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.conv = MutableConv2d(3, nni.choice("width", [2, 4]), 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    for strategy in (QuantNAS(quantization="none"), nni_darts()):
        supernet = strategy.mutate_model(Wide())
        frozen = supernet.freeze({"width": 2})
        assert frozen.conv.bias is None and torch.equal(frozen.conv.weight, supernet.conv.weight[:2])


def test_a_search_within_a_trial_leaves_the_trials_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nni.trial, "_params", {"parameter_id": 7, "parameters": {}})
    search(tmp_path, epochs=1)
    assert nni.trial._params["parameter_id"] == 7
