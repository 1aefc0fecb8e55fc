"""Genotype files of the authors' code: read like data, turned into the architectures that they describe."""

from pathlib import Path
from typing import Any

import pytest
import torch

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError
from quantnas_ext.genotype import OPERATION_NAMES, import_genotype, parse_genotype
from quantnas_ext.nn import OPERATIONS
from recipes import import_genotype as recipe

BASIC = """Genotype_SR(
    head=[('simple_5x5_grouped_3', 8), ('simple_3x3', 8)],
    body=[('simple_1x1_grouped_3', 2), ("simple_1x1", 2)],
    tail=[],
    skip=[('decenc_3x3_2', 2)],
    upsample=[('simple_3x3_grouped_3', 8)]
)
"""
CELL = "('growth1_3x3', 8), ('skip_connect', 4), ('simple_3x3_grouped_2', 4), ('simple_1x1', 8)"
OTHER = "('simple_5x5', 8), ('simple_3x3', 4), ('simple_3x3', 4), ('1x1_increase_2', 8)"
DISTILS = "('simple_1x1', 8), ('simple_1x1', 4), ('growth1_1x1', 8)"
RFDN = (
    f"Genotype_SR(head=[('simple_3x3', 32)], body=[[{CELL}], [{OTHER}]], tail=[('simple_3x3', 4)], "
    f"skip=[[{DISTILS}], [{DISTILS}]], upsample=[('simple_3x3', 8)])"
)


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "best_arch.gen"
        path.write_text(text)
        return path

    return write


def test_every_operation_of_the_authors_has_a_name_here_and_no_two_share_one() -> None:
    assert set(OPERATION_NAMES.values()) <= set(OPERATIONS)
    assert len(set(OPERATION_NAMES.values())) == len(OPERATION_NAMES)


def test_a_genotype_of_the_basic_space_becomes_the_network_that_it_describes(written: Any) -> None:
    architecture = import_genotype(written(BASIC), "sr_basic")
    assert architecture.choices == {
        "head_0": "conv_5x5_g3",
        "head_1": "conv_3x3",
        "body_0": "conv_1x1_g3",
        "body_1": "conv_1x1",
        "body_skip": "decenc_3x3_2",
        "upsample_0": "conv_3x3_g3",
        "head_0__conv_5x5_g3__bits": 8,
        "head_1__conv_3x3__bits": 8,
        "body_0__conv_1x1_g3__bits": 2,
        "body_1__conv_1x1__bits": 2,
        "body_skip__decenc_3x3_2__bits": 2,
        "upsample_0__conv_3x3_g3__bits": 8,
    }
    c, cells, positions = 36, 3, 32 * 32
    at_8_bits = 25 * 3 * c // 3 + 9 * c * c + 9 * c * 48 // 3
    at_2_bits = cells * (c * c // 3 + c * c + 9 * (c * 18 + 18 * 18 + 18 * c))
    assert architecture.cost["bitops_32"] == positions * (64 * at_8_bits + 4 * at_2_bits)
    assert architecture.build()(torch.rand(1, 3, 6, 5)).shape == (1, 3, 24, 20)
    own = import_genotype(written(BASIC), "sr_basic", {"cells": 2, "scale": 3, "adq": "adadm", "width": 18})
    assert (own.arguments["cells"], own.build().scale, own.choices) == (2, 3, architecture.choices)


def test_three_body_blocks_are_the_cell_of_variant_a_when_that_is_asked_for(written: Any) -> None:
    path = written(BASIC.replace("body=[", "body=[('conv_5x1_1x5', 8), "))
    architecture = import_genotype(path, "sr_basic", {"body_variant": "A"})
    assert [architecture.choices[f"body_{index}"] for index in range(3)] == ["fac_5x5", "conv_1x1_g3", "conv_1x1"]
    with pytest.raises(InputError, match="section 'body' has 3 blocks where a cell of body_variant B has 2"):
        import_genotype(path, "sr_basic")


@pytest.mark.parametrize("text", [RFDN, RFDN.replace("head=[('simple_3x3', 32)], ", "")])
def test_a_genotype_of_the_rfdn_like_space_has_cells_of_their_own_and_no_head(written: Any, text: str) -> None:
    architecture = import_genotype(written(text), "sr_rfdn", {"scale": 2, "width": 24})
    assert architecture.arguments["cells"] == 2 and architecture.arguments["bits"] == [4, 8]
    bodies = [[architecture.choices[f"body{cell}_{j}"] for j in range(4)] for cell in range(2)]
    assert bodies[0] == ["growth1_3x3", "skip_connect", "conv_3x3_g2", "conv_1x1"]
    assert bodies[1] == ["conv_5x5", "conv_3x3", "conv_3x3", "increase_1x1"]
    assert [architecture.choices[f"distil1_{j}"] for j in range(3)] == ["conv_1x1", "conv_1x1", "growth1_1x1"]
    assert architecture.choices["distil0_1__conv_1x1__bits"] == 4
    assert "body0_1__skip_connect__bits" not in architecture.choices
    assert architecture.build()(torch.rand(1, 3, 15, 16)).shape == (1, 3, 30, 32)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('ran')",
        "Genotype_SR(body=[(__import__('os').mkdir('ran'), 8)], tail=[], skip=[], upsample=[])",
        "Genotype_SR(body=[(mkdir('ran'), 8)], tail=[], skip=[], upsample=[])",
        "Genotype_SR(body=[('simple_3x3', 4 if mkdir('ran') else 8)], tail=[], skip=[], upsample=[])",
        "Genotype_SR(body=[b for b in mkdir('ran')], tail=[], skip=[], upsample=[])",
        "Genotype_SR(body=[f'simple_3x3', 8], tail=[], skip=[], upsample=[])",
        "Genotype_SR(mkdir('ran'))",
        "mkdir('ran')",
        "(" * 10_000,
        "not " * 4_000 + "a",
        "[" * 4 + "9" * 10_000 + "]" * 4,
        "a" * 30_000,
        "Genotype_SR(\x00)",
        "Genotype_SR(",
        "Genotype_SR(**a)",
        "",
        "Genotype_SR(normal=[[('growth2_5x5', 0)]], normal_concat=range(4, 6))",
    ],
)
def test_texts_that_are_no_genotypes_are_refused_and_never_run(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        parse_genotype(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("space", "change", "arguments", "message"),
    [
        ("sr_basic", ("simple_5x5_grouped_3", "simple_5x5_group_3"), {}, "did you mean 'simple_5x5_grouped_3'"),
        ("sr_basic", ("'simple_3x3', 8)]", "'simple_3x3', 1)]"), {}, "1 bits"),
        ("sr_basic", ("'simple_3x3', 8)]", "'simple_3x3', True)]"), {}, "pairs such as"),
        ("sr_basic", ("('decenc_3x3_2', 2)", ""), {}, "section 'skip' has 0 blocks where .* has 1"),
        ("sr_basic", ("skip=", "skips="), {}, "did you mean 'skip'"),
        ("sr_basic", ("    tail=[],", ""), {}, "section 'tail' is missing"),
        ("sr_basic", ("tail=[]", "tail=[], tail=[]"), {}, "twice|no genotype"),
        ("sr_basic", ("tail=[]", "tail=[[('simple_3x3', 8)]]"), {}, "'tail' lists cells"),
        ("sr_basic", ("", ""), {"bits": [4]}, "argument 'bits' comes from the file"),
        ("sr_basic", ("", ""), {"widht": 48}, "did you mean 'width'"),
        ("sr_basic", ("", ""), {"width": 40}, "from 3 to 40 channels cannot have 3 groups"),
        ("sr_basic", ("", ""), {"body_variant": "C"}, "unknown body variant 'C'"),
        ("sr_rfdn", ("", ""), {}, "section 'body' has 2 blocks where a cell has 4"),
        ("sr_rfdm", ("", ""), {}, "did you mean 'sr_rfdn'"),
    ],
)
def test_what_does_not_fit_is_named(
    written: Any, space: str, change: tuple[str, str], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        import_genotype(written(BASIC.replace(*change)), space, arguments)


def test_cells_of_body_and_skip_have_to_agree(written: Any) -> None:
    with pytest.raises(InputError, match="different numbers of cells"):
        import_genotype(written(RFDN.replace(f", [{OTHER}]", "")), "sr_rfdn")
    with pytest.raises(InputError, match="section 'head' is missing"):
        import_genotype(written(RFDN.replace("head=[('simple_3x3', 32)], ", "")), "sr_basic")


def test_the_recipe_writes_an_architecture_file_or_where_the_input_is_bad_nothing(written: Any, tmp_path: Path) -> None:
    output, genotype = tmp_path / "architecture.yaml", str(written(RFDN))
    words = [genotype, "--space", "sr_rfdn", "--output", str(output)]
    for bad, message in (
        (["--set", "width"], "write ARGUMENT=VALUE"),
        (["--set", "width=12", "--set", "width=24"], "each once"),
        (["--set", "width={"], "--set 'width={'"),
        (["--set", "cells=2"], "best_arch.gen': .* 'cells' comes from the file"),
        (["--output", str(tmp_path / "absent" / "a.yaml")], "does not exist"),
        (["--output", genotype], "already exists"),
    ):
        with pytest.raises(InputError, match=message):
            recipe.main([*words, *bad])
    with pytest.raises(InputError, match="absent.gen': it cannot be read"):
        recipe.main([str(tmp_path / "absent.gen"), *words[1:]])
    assert [path.name for path in tmp_path.iterdir()] == ["best_arch.gen"]
    recipe.main([*words, "--set", "width=24", "--set", "scale=2"])
    loaded = Architecture.load(output)
    assert loaded.arguments["width"] == 24 and loaded.provenance == {"genotype": "best_arch.gen"}
    assert loaded.choices["body0_0__growth1_3x3__bits"] == 8
