"""Genotype files of the authors' code, read as text and turned into architectures; nothing in them is ever run.

The public code of Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024), writes what it found as the
text of a named tuple (``best_arch.gen``), which it reads back with ``eval``:

    Genotype_SR(head=[('simple_3x3', 8), ...], body=[...], tail=[...], skip=[...], upsample=[...])

Checked against that repository's ``genotypes.py``, networks and example files in several of its versions: a section
lists pairs of operation and bits. In the basic space all cells share the one list of ``body`` and of ``skip``. In the
RFDN-like space these list the cells, each a list of its own; ``skip`` holds the distilling blocks, and ``head``, which
some versions still write, has no part in the network. Not checked: files of an actual search, of which none was at
hand. What a file does not hold (scale, width, number of shared cells, normalisation) is given as space arguments.

Two things are not quite the authors': their ``DWS`` is two pointwise convolutions whatever its kernel size, here it is
depthwise separable; and their public code puts the parallel block around however many body blocks there are, as variant
B does around two, so that three blocks are read only where ``body_variant`` A, the paper's cell, is asked for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantnas_ext.architecture import Architecture
from quantnas_ext.errors import InputError, about, unknown_name

Gene = tuple[str, int]
"""Operation and bits of one block, in the authors' words."""


@dataclass(frozen=True)
class Section:
    """One section of a genotype.

    Attributes:
        cells: blocks of every cell; one list where ``own`` is not set.
        own: whether the section lists cells, and not the blocks that all cells share.
    """

    cells: list[list[Gene]]
    own: bool = False


SECTIONS = ("head", "body", "tail", "skip", "upsample")

OPERATION_NAMES = {
    "skip_connect": "skip_connect",
    **{f"simple_{k}x{k}": f"conv_{k}x{k}" for k in (1, 3, 5)},
    **{f"simple_{k}x{k}_grouped_{g}": f"conv_{k}x{k}_g{g}" for k in (1, 3, 5) for g in (2, 3)},
    **{f"simple_{k}x{k}_grouped_full": f"conv_{k}x{k}_dw" for k in (1, 3, 5)},
    "simple_3x3_d2": "conv_3x3_d2",
    "simple_3x3_grouped_3_d2": "conv_3x3_g3_d2",
    **{f"conv_{k}x1_1x{k}": f"fac_{k}x{k}" for k in (3, 5)},
    **{f"DWS_{k}x{k}": f"dws_{k}x{k}" for k in (3, 5)},
    **{f"growth{r}_{k}x{k}": f"growth{r}_{k}x{k}" for r in (1, 2) for k in (1, 3, 5)},
    **{f"decenc_{k}x{k}_{r}{g}": f"decenc_{k}x{k}_{r}{g}" for k in (3, 5) for r in (2, 4, 8) for g in ("", "_g3")},
    **{f"{k}x{k}_{way}_2": f"{way}_{k}x{k}" for k in (1, 3, 5) for way in ("increase", "decrease")},
}
"""The authors' operations and the names that they have here."""

_LARGEST_FILE = 20_000  # characters; the largest real ones have some two thousand
_MOST_NESTING = 5  # brackets: the call, a section, a cell, a block
_ALPHABET = re.compile(r"[\w\s()\[\],='\"]*", re.ASCII)


def import_genotype(path: str | Path, space: str, arguments: Mapping[str, Any] | None = None) -> Architecture:
    """The architecture that a genotype file describes, with its costs counted.

    Candidates and precisions of its space are those that the file uses.

    Args:
        path: genotype file.
        space: ``"sr_basic"`` or ``"sr_rfdn"``.
        arguments: arguments of the space that the file does not determine; the space's defaults are the paper's.

    Raises:
        InputError: when the file is missing or no genotype, has an unknown operation or other numbers of blocks than
            the space, or an argument contradicts it.
    """
    path = Path(path)
    if space not in _IMPORTS:
        raise unknown_name("space of genotypes", space, _IMPORTS)
    with about(f"genotype file '{path}'"):
        genotype = parse_genotype(_read(path))
        # Here, as this loads torch and NNI, for which a file that is none need not wait.
        from quantnas_ext.nn.operations import WITHOUT_PRECISION, precision_label

        given = dict(arguments or {})
        found, blocks = _IMPORTS[space](genotype, given)
        quantized = {label: gene for label, gene in blocks.items() if gene[0] not in WITHOUT_PRECISION}
        found["bits"] = sorted({bits for _, bits in quantized.values()})
        for name in given:
            if name in found:
                raise InputError(f"the space's argument {name!r} comes from the file; leave it out")
        choices: dict[str, Any] = {label: operation for label, (operation, _) in blocks.items()}
        choices |= {precision_label(label, operation): bits for label, (operation, bits) in quantized.items()}
        return Architecture.of(space, given | found, choices, {"genotype": path.name})


def parse_genotype(text: str) -> dict[str, Section]:
    """Sections of a genotype, in the authors' words; only calls, lists, tuples, texts and whole numbers are read.

    Raises:
        InputError: for anything else.
    """
    _check_form(text)
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError("it is no genotype, which reads Genotype_SR(head=[('simple_3x3', 8), ...], ...)") from error
    match call:
        case ast.Call(func=ast.Name(id="Genotype_SR"), args=[], keywords=keywords):
            pass
        case _:
            raise InputError("it should be one call Genotype_SR(...) whose sections are given by name")
    genotype: dict[str, Section] = {}
    for keyword in keywords:
        if keyword.arg not in SECTIONS:
            raise unknown_name("section", keyword.arg, SECTIONS)
        if keyword.arg in genotype:
            raise InputError(f"section {keyword.arg!r} is there twice; keep one")
        genotype[keyword.arg] = _section(keyword.arg, keyword.value)
    for name in SECTIONS[1:]:  # later versions write no head
        if name not in genotype:
            raise InputError(f"section {name!r} is missing; a genotype has {', '.join(SECTIONS[1:])}, and perhaps head")
    return genotype


def _read(path: Path) -> str:
    """The text of a file."""
    try:
        large = path.stat().st_size > _LARGEST_FILE
        text = "" if large else path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"it cannot be read ({error.strerror}); name a file such as best_arch.gen") from error
    except ValueError as error:  # no text, or a name that no file can have
        raise InputError("it is not a text file; name a file such as best_arch.gen") from error
    if large:
        raise InputError(f"it is larger than the {_LARGEST_FILE} bytes that a genotype can have")
    return text


def _check_form(text: str) -> None:
    """Refuse texts that would be long work even to parse."""
    if len(text) > _LARGEST_FILE or not _ALPHABET.fullmatch(text):
        raise InputError(
            "it is no genotype, which holds names, whole numbers, quotes, commas and brackets "
            f"in at most {_LARGEST_FILE} characters"
        )
    depth = 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if depth > _MOST_NESTING:
            raise InputError(f"its brackets are nested deeper than the {_MOST_NESTING} that a genotype can have")


def _section(name: str, node: ast.expr) -> Section:
    """Blocks of one section, or blocks of each cell."""
    if isinstance(node, ast.List) and node.elts and all(isinstance(element, ast.List) for element in node.elts):
        return Section([_blocks(name, element) for element in node.elts], own=True)
    return Section([_blocks(name, node)])


def _blocks(name: str, node: ast.expr) -> list[Gene]:
    """Blocks of a list of (operation, bits)."""
    if not isinstance(node, ast.List):
        raise InputError(f"section {name!r} should be a list of pairs such as ('simple_3x3', 8)")
    genes = []
    for element in node.elts:
        match element:
            case ast.Tuple(elts=[ast.Constant(value=str(operation)), ast.Constant(value=int(bits))]) if (
                bits is not True
            ):
                pass
            case _:
                raise InputError(f"section {name!r} should hold pairs such as ('simple_3x3', 8) alone")
        if operation not in OPERATION_NAMES:
            raise unknown_name(f"operation in section {name!r}:", operation, OPERATION_NAMES)
        genes.append((OPERATION_NAMES[operation], bits))
    return genes


def _basic(genotype: dict[str, Section], arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Gene]]:
    """Arguments of the basic space that a genotype determines, and its blocks by label."""
    from quantnas_ext.spaces.sr_basic import BODY_CELLS

    variant = arguments.get("body_variant", "B")
    if not isinstance(variant, str) or variant not in BODY_CELLS:
        raise unknown_name("body variant", variant, BODY_CELLS)
    if "head" not in genotype:
        raise InputError("section 'head' is missing; genotypes without it are of the space sr_rfdn")
    bodies, parallels = _cells(genotype, body=BODY_CELLS[variant][1], skip=1, of=f"a cell of body_variant {variant}")
    blocks: dict[str, Gene] = {}
    for own, row in bodies.items():
        blocks |= {f"body{own}_{index}": gene for index, gene in enumerate(row)}
        blocks[f"body{own}_skip"] = parallels[own][0]
    lengths = {}
    for name in ("head", "tail"):
        genes = _flat(genotype, name)
        lengths[f"{name}_blocks"] = len(genes)
        blocks |= {f"{name}_{index}": gene for index, gene in enumerate(genes)}
    blocks["upsample_0"] = _only(genotype, "upsample")
    sections = {name: name for name in ("body", "skip", "head", "tail", "upsample")}
    return {**_cell_arguments(genotype), **lengths, **_candidates(genotype, sections)}, blocks


def _rfdn(genotype: dict[str, Section], arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Gene]]:
    """Arguments of the RFDN-like space that a genotype determines, and its blocks by label."""
    from quantnas_ext.spaces.sr_rfdn import STEPS

    bodies, distils = _cells(genotype, body=STEPS + 1, skip=STEPS, of="a cell")
    blocks: dict[str, Gene] = {}
    for own, genes in bodies.items():
        blocks |= {f"body{own}_{index}": gene for index, gene in enumerate(genes)}
        blocks |= {f"distil{own}_{index}": gene for index, gene in enumerate(distils[own])}
    blocks |= {f"{name}_0": _only(genotype, name) for name in ("upsample", "tail")}
    sections = {"body": "body", "skip": "distil", "upsample": "upsample", "tail": "tail"}
    return {**_cell_arguments(genotype), **_candidates(genotype, sections)}, blocks


_IMPORTS = {"sr_basic": _basic, "sr_rfdn": _rfdn}


def _cells(genotype: dict[str, Section], *, body: int, skip: int, of: str) -> list[dict[str, list[Gene]]]:
    """Blocks of the sections, ``body`` and ``skip`` for each cell, by its number; empty for all cells together."""
    sections = {"body": genotype["body"], "skip": genotype["skip"]}
    if sections["body"].own != sections["skip"].own or len(sections["body"].cells) != len(sections["skip"].cells):
        raise InputError("the sections 'body' and 'skip' list different numbers of cells; they need as many")
    found = []
    for (name, section), needed in zip(sections.items(), (body, skip), strict=True):
        for genes in section.cells:
            _check_count(name, genes, needed, of)
        found.append({str(cell) if section.own else "": genes for cell, genes in enumerate(section.cells)})
    return found


def _cell_arguments(genotype: dict[str, Section]) -> dict[str, Any]:
    """What the form of the body says of the space's cells."""
    body = genotype["body"]
    return {"share_cells": False, "cells": len(body.cells)} if body.own else {"share_cells": True}


def _flat(genotype: dict[str, Section], name: str) -> list[Gene]:
    """Blocks of a section that has no cells."""
    if genotype[name].own:
        raise InputError(f"section {name!r} lists cells; it should list blocks such as ('simple_3x3', 8)")
    return genotype[name].cells[0]


def _only(genotype: dict[str, Section], name: str) -> Gene:
    """The block of a section that has one."""
    genes = _flat(genotype, name)
    _check_count(name, genes, 1, "the space")
    return genes[0]


def _check_count(name: str, genes: list[Gene], needed: int, of: str) -> None:
    """Refuse a section with more or fewer blocks than there are in its place."""
    if len(genes) != needed:
        raise InputError(f"section {name!r} has {len(genes)} blocks where {of} has {needed}")


def _candidates(genotype: dict[str, Section], arguments: Mapping[str, str]) -> dict[str, list[str]]:
    """Operations in use, by argument of the space: ``arguments`` has those of the sections."""
    return {
        argument: list(dict.fromkeys(operation for cell in genotype[section].cells for operation, _ in cell))
        for section, argument in arguments.items()
    }
