"""Fixed operations: precisions alone are left, and together they make an architecture of the whole space."""

from typing import Any

import pytest
from small_searches import LinkedSpace

from quantnas_ext.architecture import Architecture
from quantnas_ext.costs.cost import BitOps, sample_cost
from quantnas_ext.deriving.random_architectures import random_architectures
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.distribution.fixed_choices import fix_choices, fix_operations
from quantnas_ext.errors import InputError
from quantnas_ext.spaces import build_space

PAIR = ["conv_1x1", "conv_3x3"]
SPACES: dict[str, dict[str, Any]] = {
    "sr_basic": {"scale": 2, "width": 6, "cells": 2, "bits": [4, 8], "body": PAIR, "skip": PAIR},
    "sr_rfdn": {"scale": 2, "width": 12, "cells": 2, "bits": [4, 8], "body": PAIR, "distil": PAIR, "upsample": PAIR},
}
COST = BitOps((1, 3, 16, 16))


@pytest.mark.parametrize("name", SPACES)
def test_precisions_are_left_and_make_an_architecture_together_with_the_operations(name: str) -> None:
    (full,) = random_architectures(build_space(name, {**SPACES[name], "bits": [32]}), 1, seed=3).samples
    space = build_space(name, SPACES[name])
    operations = fix_operations(space, full)
    left = ChoiceTree.of(space)
    assert {choice.label for choice in left} == {f"{block}__{chosen}__bits" for block, chosen in operations.items()}
    blocks = {choice.label for choice in ChoiceTree.of(build_space(name, SPACES[name])) if choice.parent is None}
    assert set(operations) == blocks
    for precisions in random_architectures(space, 3).samples:
        architecture = Architecture.of(name, SPACES[name], operations | precisions)
        assert sample_cost(COST.terms(space), precisions) == COST.of_network(architecture.build())


def test_what_is_inside_a_chosen_candidate_stays_to_be_chosen() -> None:
    space = LinkedSpace()
    fix_choices(space, {"outer": "x"})
    assert {choice.label for choice in ChoiceTree.of(space)} == {"inner", "shared", "second", "third", "last"}
    space = LinkedSpace()
    fix_choices(space, {"outer": "x", "inner": "b", "second": "y"})
    assert {choice.label for choice in ChoiceTree.of(space)} == {"third", "last"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"body_0": "conv3x3"}, "did you mean 'conv_3x3'"),
        ({"bodi_0": "conv_3x3"}, "did you mean 'body_0'"),
        ({"head_0__conv_3x3__bits": 4}, "unknown block"),
    ],
)
def test_unknown_blocks_and_candidates_are_refused_and_the_space_stays(changes: dict[str, Any], sentence: str) -> None:
    space = build_space("sr_basic", SPACES["sr_basic"])
    before = ChoiceTree.of(space)
    with pytest.raises(InputError, match=sentence):
        fix_choices(space, {"head_0": "conv_3x3", **changes})
    assert ChoiceTree.of(space) == before


def test_operations_of_another_space_are_refused() -> None:
    (sample,) = random_architectures(build_space("sr_basic", SPACES["sr_basic"]), 1).samples
    with pytest.raises(InputError, match="unknown block 'head_0'"):
        fix_operations(build_space("sr_rfdn", SPACES["sr_rfdn"]), sample)
    longer = build_space("sr_basic", {**SPACES["sr_basic"], "head_blocks": 3})
    with pytest.raises(InputError, match="no operation for block 'head_2'"):
        fix_operations(longer, sample)
