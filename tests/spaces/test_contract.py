"""The contract of spaces: a bare one is enough to be searched, and what it lacks is said in a sentence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nni
import pytest
import torch
import yaml
from nni.nas.nn.pytorch import ModelSpace
from skimage import data
from small_searches import LinkedSpace

from quantnas_ext.architecture import Architecture
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.errors import InputError
from quantnas_ext.nn import Add, MutableQuantConv2d, operation_block
from quantnas_ext.runs.config import load_config
from quantnas_ext.spaces import SPACES, SRBasicSpace, build_space, register_space, scale_of
from quantnas_ext.spaces.contract import Drawn, Scaled, SizeChecked, diagram_of
from quantnas_ext.spaces.registry import argument_names, default_arguments
from quantnas_ext.sr.data.folders import prepare_dataset_folder
from quantnas_ext.sr.data.images import write_png
from quantnas_ext.sr.data.search_data import search_datasets
from quantnas_ext.sr.weights.weight_identity import WeightIdentity
from recipes import search


class Plain(ModelSpace):
    """A space of one's own, with candidates that weights do not depend on."""

    CANDIDATE_ARGUMENTS = ("operations",)

    def __init__(self, width: int = 4, bits: Any = (4, 8), operations: Any = ("conv_1x1", "conv_3x3")) -> None:
        super().__init__()
        self.only = operation_block("only", operations, 3, width, width=width, bits=bits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.only(x)


class Inheriting(Plain):
    """A class without an ``__init__``."""


@pytest.fixture
def registered() -> Iterator[None]:
    kept = dict(SPACES)
    register_space("plain")(Plain)
    register_space("inheriting")(Inheriting)
    yield
    SPACES.clear()
    SPACES.update(kept)


def test_a_registered_space_has_a_name_in_files_and_configurations(registered: None, tmp_path: Path) -> None:
    config = load_config(None, ["space.name=plain", "space.arguments={width: 6, bits: [2, 8]}"])
    space = build_space(config.space.name, config.space.arguments)
    sample = {choice.label: choice.values[0] for choice in ChoiceTree.of(space)}
    architecture = Architecture.of("plain", config.space.arguments, sample)
    architecture.save(tmp_path / "architecture.yaml")
    loaded = Architecture.load(tmp_path / "architecture.yaml")
    assert loaded.build()(torch.rand(1, 3, 4, 4)).shape == (1, 6, 4, 4)
    assert set(loaded.with_precision(32).choices.values()) == {"conv_1x1", 32}
    more = Architecture(
        "plain",
        {**architecture.arguments, "operations": ["conv_1x1"]},
        {
            "only": "conv_1x1",
            "only__conv_1x1__bits": 2,
        },
    )
    assert WeightIdentity.of(loaded).digest == WeightIdentity.of(more).digest
    assert WeightIdentity.of(loaded).arguments == {"width": 6}


class Enlarging(ModelSpace):
    """A space with a scale and without a diagram, whose only choices are the bits of its layers."""

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.first, self.second = (
            MutableQuantConv2d(3, channels, 3, padding=1, bits=nni.choice(f"{name}_layer", [4, 8]))
            for name, channels in (("first", 3), ("second", 3 * scale**2))
        )
        self.add = Add()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pixel_shuffle(self.second(self.add(x, self.first(x))), self.scale)


def test_the_recipe_searches_a_registered_space_without_a_diagram(
    registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quantnas_ext.notices._said", set())
    register_space("enlarging")(Enlarging)
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "cat.png", data.chelsea()[:80, :120])
    prepare_dataset_folder(tmp_path / "images", tmp_path / "train", scale=2, crop=40)
    content = {
        "run": str(tmp_path / "run"),
        "space": {"name": "enlarging", "arguments": {"scale": 2}},
        "data": {"patch": 12, "batch_size": 2, "train": [str(tmp_path / "train")]},
        "search": {"epochs": 1, "steps_per_epoch": 1, "warmup_epochs": 0, "threads": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    search.main(["--config", str(tmp_path / "config.yaml")])
    assert "the space Enlarging has no diagram(), so its architecture is not drawn" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "run" / "plots").iterdir()) == ["distributions.png", "search.png"]
    assert set(Architecture.load(tmp_path / "run" / "architecture.yaml").choices) == {"first_layer", "second_layer"}


def test_a_class_without_an_init_takes_the_arguments_of_its_parent(registered: None) -> None:
    assert argument_names("inheriting") == argument_names("plain") == ["width", "bits", "operations"]
    assert default_arguments("inheriting")["width"] == 4
    assert isinstance(build_space("inheriting", {"width": 5}), Inheriting)
    with pytest.raises(InputError, match="unknown argument of space 'inheriting' 'widht'; did you mean 'width'"):
        build_space("inheriting", {"widht": 5})


@pytest.mark.parametrize("name", ["sr_basic", "a space", "", 3])
def test_a_name_that_is_taken_or_none_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match="another name" if name == "sr_basic" else "cannot name a space"):
        register_space(name)
    with pytest.raises(InputError, match="give a class of nni"):
        register_space("network")(torch.nn.Linear)  # type: ignore[type-var]


def test_what_a_bare_space_lacks_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, whole = LinkedSpace(), SRBasicSpace(scale=2, width=6, adq=False)
    optional = (Drawn, Scaled)
    assert not any(isinstance(bare, of) for of in (*optional, SizeChecked))
    assert all(isinstance(whole, of) for of in optional) and scale_of(whole) == 2
    monkeypatch.setattr("quantnas_ext.notices._said", set())
    assert diagram_of(bare) is None
    assert "note: the space LinkedSpace has no diagram(), so its architecture is not drawn" in capsys.readouterr().err
    with pytest.raises(InputError, match="the space LinkedSpace has no scale"):
        search_datasets(load_config("demo"), bare)
    bare.scale = torch.nn.Parameter(torch.ones(()))
    with pytest.raises(InputError, match="has no scale, which super-resolution data need"):
        scale_of(bare)
    monkeypatch.setitem(SPACES, "linked", LinkedSpace)
    sample = {choice.label: choice.values[0] for choice in ChoiceTree.of(LinkedSpace())}
    with pytest.raises(InputError, match="space 'linked' has no argument 'bits'"):
        Architecture("linked", {}, sample).with_precision(8)
