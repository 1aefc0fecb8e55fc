"""The distribution over architectures: joint probabilities, entropy, arg max."""

import copy
import itertools

import nni
import pytest
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableDropout
from small_searches import NestedSpace, TwiceShared
from torch import nn

from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.nn import MutableQuantConv2d
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRBasicSpace


def random_distribution(space: ModelSpace) -> ArchitectureDistribution:
    torch.manual_seed(3)
    distribution = ArchitectureDistribution(ChoiceTree.of(space))
    for logits in distribution.parameters():
        logits.data.normal_()
    return distribution


def test_a_choice_below_one_candidate_has_it_as_parent_and_a_shared_one_stands_alone() -> None:
    parents = {choice.label: choice.parent for choice in ChoiceTree.of(NestedSpace())}
    assert parents == {"outer": None, "shared": None, "inner": ("outer", "x"), "deep": ("inner", "a")}


def test_a_kind_is_told_by_where_a_choice_stands_and_not_by_its_label() -> None:
    class Misleading(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            layer = MutableQuantConv2d(3, 3, 1, bits=nni.choice("operation", [2, 8]))
            self.block = LayerChoice({"x": layer, "y": nn.ReLU()}, label="block__x__bits")
            self.dropout = MutableDropout(nni.choice("dropout__bits", [0.1, 0.2]))
            self.inputs = InputChoice(n_candidates=2, label="inputs")

    kinds = {choice.label: choice.kind for choice in ChoiceTree.of(Misleading())}
    assert kinds == {
        "block__x__bits": "operation",
        "operation": "precision",
        "dropout__bits": "other",
        "inputs": "other",
    }
    space = NestedSpace()
    before = {choice.label: choice.kind for choice in ChoiceTree.of(space)}
    assert before == {"outer": "operation", "shared": "precision", "inner": "operation", "deep": "precision"}
    assert {choice.label: choice.kind for choice in ChoiceTree.of(QuantNAS().mutate_model(space))} == before


def test_joint_entropy_and_arg_max_equal_those_of_the_explicit_joint() -> None:
    distribution = random_distribution(NestedSpace())
    p = {label: logits.softmax(0).tolist() for label, logits in distribution.logits.items()}
    joint = {("y",): p["outer"][1], ("z",): p["outer"][2], ("x", "b"): p["outer"][0] * p["inner"][1]}
    for index, bits in enumerate((2, 4, 8)):
        joint["x", "a", bits] = p["outer"][0] * p["inner"][0] * p["deep"][index]
    assert sum(joint.values()) == pytest.approx(1)
    expected = -sum(q * torch.tensor(q).log().item() for q in joint.values())
    # Under y and z only.
    expected_shared = -sum(q * torch.tensor(q).log().item() for q in p["shared"]) * (p["outer"][1] + p["outer"][2])
    entropies = dict(
        zip([root.label for root in distribution.tree.roots()], distribution.block_entropies().tolist(), strict=True)
    )
    assert entropies == pytest.approx({"outer": expected, "shared": expected_shared}, rel=1e-5)
    best = max(joint, key=joint.get)  # type: ignore[arg-type]
    sample = distribution.most_likely()
    assert tuple(sample[label] for label in ("outer", "inner", "deep") if label in sample) == best
    assert distribution.confidences()["outer"] == pytest.approx(max(joint.values()), rel=1e-5)


def test_arg_max_is_joint_and_not_one_for_each_label() -> None:
    distribution = ArchitectureDistribution(
        ChoiceTree.of(SRBasicSpace(scale=2, width=6, body=["conv_3x3", "conv_5x5"]))
    )
    # conv_3x3 is likelier, but undecided about its bits: 0.55 * 0.5 < 0.45 * 0.98.
    distribution.logits["body_0"].data = torch.tensor([0.55, 0.45]).log()
    distribution.logits["body_0__conv_3x3__bits"].data = torch.tensor([0.5, 0.5]).log()
    distribution.logits["body_0__conv_5x5__bits"].data = torch.tensor([0.02, 0.98]).log()
    sample = distribution.most_likely()
    assert sample["body_0"] == "conv_5x5" and sample["body_0__conv_5x5__bits"] == 4
    assert "body_0__conv_3x3__bits" not in sample


def test_the_draw_stays_the_same_until_the_next_and_is_differentiable() -> None:
    distribution = random_distribution(NestedSpace())
    draw = distribution.draw()
    distribution.logits["outer"].data.zero_()
    assert distribution.current is draw
    for label in ("inner", "deep", "shared"):
        torch.testing.assert_close(draw[label], distribution.logits[label].softmax(0))
    assert not torch.allclose(draw["outer"], torch.full((3,), 1 / 3))
    assert torch.allclose(distribution.draw()["outer"], torch.full((3,), 1 / 3))
    draw["deep"][0].backward()
    assert distribution.logits["deep"].grad is not None


def test_entropy_gradient_is_finite_also_when_nearly_all_is_decided() -> None:
    distribution = random_distribution(NestedSpace())
    for logits in distribution.parameters():
        logits.data = torch.linspace(0, 2000, len(logits))
    distribution.entropy(distribution.draw()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in distribution.parameters())


def test_a_copy_has_the_same_logits_and_draws_for_itself() -> None:
    distribution = random_distribution(NestedSpace())
    distribution.draw()
    clone = copy.deepcopy(distribution)
    for (name, ours), (other, theirs) in itertools.zip_longest(
        distribution.state_dict().items(), clone.state_dict().items()
    ):
        assert name == other and torch.equal(ours, theirs)
    clone.logits["outer"].data.zero_()
    assert not torch.allclose(distribution.current["outer"], clone.draw()["outer"])


def test_block_entropies_sum_to_the_entropy_of_all_that_matters_where_candidates_share_a_precision() -> None:
    distribution = random_distribution(TwiceShared())
    p = {
        choice.label: dict(zip(choice.values, distribution.probabilities()[choice.label], strict=True))
        for choice in distribution.tree
    }
    entropy = 0.0
    for first, second, bits in itertools.product("xyz", ("xa", "xb", "y"), (None, 2, 4, 8)):
        matters = first in "xy" or second == "xa"
        if matters == (bits is None):
            continue
        q = p["first"][first] * p["second"][second[0]] * (p["inner"][second[1]] if second != "y" else 1.0)
        q *= p["shared"][bits] if bits else 1.0
        entropy -= q * torch.tensor(q).log().item()
    assert float(distribution.entropy(distribution.draw()).detach()) == pytest.approx(entropy, rel=1e-5)
    distribution.logits["first"].data = torch.tensor([-50.0, -50.0, 50.0])
    distribution.logits["second"].data = torch.tensor([-50.0, 50.0])
    assert float(distribution.entropy(distribution.draw()).detach()) == pytest.approx(0, abs=1e-6)


def test_a_sample_is_complete_when_every_choice_that_matters_has_a_known_value() -> None:
    tree = ChoiceTree.of(TwiceShared())
    idle = {"first": "z", "second": "y"}
    assert tree.complete({**idle, "shared": 3, "other": 1}) == idle
    assert tree.complete({**idle, "first": "x", "shared": [4, 4]}) == {**idle, "first": "x", "shared": 4}
    assert tree.complete({**idle, "second": "x", "inner": "b"}) == {**idle, "second": "x", "inner": "b"}
    for sample, message in (
        ({}, "no value for choice 'first'"),
        ({**idle, "first": "x"}, "no value for choice 'shared'; give one of 2, 4, 8"),
        ({**idle, "second": "x"}, "no value for choice 'inner'"),
        ({**idle, "second": "x", "inner": "a"}, "no value for choice 'shared'"),
        ({**idle, "first": "w"}, "unknown value of choice 'first' 'w'"),
        ({**idle, "first": "y", "shared": 3}, "unknown value of choice 'shared' '3'"),
    ):
        with pytest.raises(InputError, match=message):
            tree.complete(sample)
