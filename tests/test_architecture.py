"""The architecture file: exact round trip, checked content."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nni.nas.nn.pytorch import InputChoice, ModelSpace

from quantnas_ext.architecture import Architecture, filed_costs
from quantnas_ext.costs.cost import BitOps, Cost, ParameterBytes
from quantnas_ext.costs.counted import CostCounter
from quantnas_ext.costs.traced_layer import TracedLayer
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.quantization import Precision, QuantConv2d
from quantnas_ext.spaces import SPACES, SRBasicSpace


class InputSpace(ModelSpace):
    """Two of three inputs are chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen = InputChoice(n_candidates=3, n_chosen=2, label="inputs")


ARGUMENTS: dict[str, Any] = {"scale": 2, "width": 6, "cells": 1, "adq": False, "bits": [4, 8]}


@pytest.fixture
def architecture() -> Architecture:
    sample: dict[str, Any] = {}
    SRBasicSpace(**ARGUMENTS).random(sample)
    needed = {k: v for k, v in sample.items() if "__" not in k or sample[k.split("__")[0]] == k.split("__")[1]}
    return Architecture.of("sr_basic", ARGUMENTS, needed, {"seed": 3, "nested": {"tuple": (1, 2)}})


def test_a_saved_architecture_loads_into_exactly_the_same_network(architecture: Architecture, tmp_path: Path) -> None:
    architecture.save(tmp_path / "architecture.yaml")
    loaded = Architecture.load(tmp_path / "architecture.yaml")
    assert (loaded.space, loaded.arguments, loaded.choices) == ("sr_basic", ARGUMENTS, architecture.choices)
    assert loaded.cost == architecture.cost and loaded.provenance["nested"]["tuple"] == [1, 2]
    network, twin = architecture.build(), loaded.build()
    assert str(network) == str(twin)
    twin.load_state_dict(network.state_dict(), strict=True)
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(network(x), twin(x), rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["architecture.yaml"]
    loaded.save(tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "architecture.yaml").read_text()


def test_full_precision_keeps_the_operations_and_costs_1024_bits_a_mac(architecture: Architecture) -> None:
    full = architecture.with_precision(32)
    assert not any(isinstance(m, QuantConv2d) and m.precision.weight_bits != 32 for m in full.build().modules())
    operations = {k: v for k, v in architecture.choices.items() if "__" not in k}
    assert {k: v for k, v in full.choices.items() if "__" not in k} == operations
    assert full.cost["bitops_32"] == 1024 / 64 * architecture.with_precision(8).cost["bitops_32"]


def damaged(architecture: Architecture, tmp_path: Path, change: Any) -> Path:
    path = tmp_path / "architecture.yaml"
    architecture.save(path)
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="other"), "not an architecture file"),
        (lambda c: c.update(version=3), "version 3; .* versions up to 2"),
        (lambda c: c.pop("choices"), "lacks the section 'choices'"),
        (lambda c: c.update(chioces={}), "did you mean 'choices'"),
        (lambda c: c["space"].update(name="sr_basics"), "did you mean 'sr_basic'"),
        (lambda c: c["space"]["arguments"].update(widht=3), "did you mean 'width'"),
        (lambda c: c["space"].update(more=1), "name and arguments"),
        (lambda c: c["choices"].update(head_0="conv_9x9"), "head_0.*conv_9x9"),
        (lambda c: c["choices"].update(hed_0="conv_3x3"), "did you mean 'head_0'"),
        (lambda c: c["choices"].update(head_0=["conv_3x3"]), "head_0"),
        (lambda c: c["choices"].pop("tail_1"), "lacks choice 'tail_1'"),
        (lambda c: c["choices"].update(head_0__conv_3x3__bits=4.0), "choice 'head_0__conv_3x3__bits'"),
        (lambda c: c["choices"].update(head_0="\x1b[31m" + "x" * 10_000), "head_0"),
        (lambda c: c["costs"][2].update(value="many"), "cost 'bytes' should be a number"),
        (lambda c: c["costs"][2].update(value=True), "cost 'bytes' should be a number"),
        (lambda c: c["costs"][0].update(value=-1), "cost 'bitops' should be a number"),
        (lambda c: c["costs"][0].update(value=float("nan")), "cost 'bitops' should be a number"),
        (lambda c: c["costs"][0].update(value=10**4000), "cost 'bitops' should be a number"),
        (lambda c: c["costs"][1].update(input=[3]), "input of cost 'bitops', .3. is not the shape"),
        (lambda c: c["costs"][1].update(inputs=[1, 3]), "did you mean 'input'"),
        (lambda c: c["costs"][1].update(input=[1, 3, 32, 32]), "cost 'bitops_32' is there twice"),
        (lambda c: c["costs"].append("macs"), "should have a name and a value"),
        (lambda c: c.update(costs={"bitops_32": 1, "bytes": 2}), "lacks cost 'bitops_256'"),
        (lambda c: c.update(costs={"bytez": 1}), "did you mean 'bytes'"),
        (lambda c: c.update(costs="dear"), "lacks the section 'costs' or has something else"),
        (lambda c: c.update(version=True), "version True"),
        (lambda c: c["space"]["arguments"].update(scale=2.0), "scale 2.0 is not possible"),
        (lambda c: c["space"]["arguments"].update(width=10**9), "width 1000000000 .* at most 4096"),
        (lambda c: c["space"]["arguments"].update(adq="false"), "adq 'false'"),
        (lambda c: c["space"]["arguments"].update(head="conv_3x3"), "write .conv_3x3."),
    ],
)
def test_foreign_or_damaged_files_are_refused_in_one_sentence(
    architecture: Architecture, tmp_path: Path, change: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        Architecture.load(damaged(architecture, tmp_path, change))
    assert "architecture.yaml" in str(error.value) and str(error.value).isprintable() and len(str(error.value)) < 2000


@pytest.mark.parametrize(
    "content",
    [b"\x00\xff\xfe", b"- a list", b"{", b"!!python/object/apply:os.system ['true']", b"", b"[" * 100_000]
    + [b"format: &a [x]\nversion: *a", b"format: &a [*a]", b"format: x\nformat: quantnas-architecture"],
)
def test_other_files_are_refused_and_nothing_in_them_is_run(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "architecture.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not an architecture file"):
        Architecture.load(path)
    with pytest.raises(InputError, match="does not exist"):
        Architecture.load(tmp_path / "missing.yaml")
    with pytest.raises(InputError, match="does not exist"):
        Architecture.load(tmp_path / ("a" * 5000))


def test_the_inputs_chosen_in_a_foreign_space_are_lists_of_distinct_values_of_their_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SPACES, "inputs", InputSpace)
    assert Architecture("inputs", {}, {"inputs": [0, 2]}).build().chosen.chosen == [0, 2]
    for wrong in (0, [0], [0, 0], [0, 3], [0, True], [0, 1.0], "01"):
        with pytest.raises(InputError, match="'inputs'"):
            Architecture("inputs", {}, {"inputs": wrong}).build()


def test_costs_of_any_task_are_filed_by_name_and_input_and_a_counter_finds_them_from_the_space(tmp_path: Path) -> None:
    costs = [BitOps((2, 3, 12, 20)), Macs((1, 3, 8, 8)), ParameterBytes((1, 3, 8, 8))]
    counter = CostCounter(SRBasicSpace(**ARGUMENTS), costs)
    for _ in range(5):
        sample: dict[str, Any] = {}
        SRBasicSpace(**ARGUMENTS).random(sample)
        choices = ChoiceTree.of(SRBasicSpace(**ARGUMENTS)).complete(sample)
        architecture = Architecture.of("sr_basic", ARGUMENTS, choices, costs=costs)
        assert list(architecture.cost) == ["bitops_3x12x20", "macs_8", "bytes"]
        assert counter.of(choices) == architecture.costs
    architecture.save(tmp_path / "architecture.yaml")
    assert Architecture.load(tmp_path / "architecture.yaml").costs == architecture.costs
    assert Architecture.of("sr_basic", ARGUMENTS, choices).costs == CostCounter(
        SRBasicSpace(**ARGUMENTS), filed_costs("sr_basic")
    ).of(choices)


class Macs(Cost):
    """Multiply-accumulates."""

    name = "macs"

    def layer_cost(self, layer: TracedLayer, precision: Precision) -> float:
        return float(layer.macs)


def test_a_space_that_names_no_inputs_is_filed_without_costs(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(SPACES, "inputs", InputSpace)
    assert filed_costs("inputs") == []
    replace(architecture, costs=()).save(tmp_path / "architecture.yaml")
    assert Architecture.load(tmp_path / "architecture.yaml").costs == ()
