import pytest

from quantnas_ext.costs.counted import CountedCost
from quantnas_ext.errors import InputError
from quantnas_ext.reporting.table import PSNR, SSIM, cost_column, format_table

ROWS = [
    {"network": "bicubic", "psnr": 27.126, "ssim": 0.81234},
    {"network": "found | mixed", "psnr": 27.5, "ssim": 0.82, "bitops_32": 1.93e9, "bytes": 35_210},
]
COSTS = [CountedCost("bitops", 1.93e9, (1, 3, 32, 32)), CountedCost("bytes", 35_210)]
COLUMNS = ["network", PSNR, SSIM, *map(cost_column, COSTS)]


def test_markdown_holds_every_figure_and_keeps_cells_apart():
    heading, rule, *body = format_table(ROWS, COLUMNS, markdown=True).splitlines()
    assert [cell.strip() for cell in heading.strip("|").split("|")][:2] == ["network", "PSNR, dB"]
    assert rule.count("|") == 6 and set(rule) <= set("|:- ")
    cells = [[cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")] for line in body]
    assert cells == [
        ["bicubic", "27.13", "0.8123", "-", "-"],
        ["found / mixed", "27.50", "0.8200", "1.93 G", "35.21 kB"],
    ]


def test_plain_columns_are_aligned():
    heading, _, *body = format_table(ROWS, COLUMNS).splitlines()
    lines = [heading, *body]
    ends = [{line.index(text) + len(text)} for line, text in zip(lines, ("PSNR, dB", "27.13", "27.50"), strict=True)]
    assert ends[0] == ends[1] == ends[2]
    starts = {line.index(text) for line, text in zip(lines, ("network", "bicubic", "found"), strict=True)}
    assert len(starts) == 1


def test_a_column_that_no_row_has_is_named():
    with pytest.raises(InputError, match="'prsn'"):
        format_table(ROWS, ["network", "prsn"])
