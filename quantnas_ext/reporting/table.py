"""Tables of figures, for terminals and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prettytable import HRuleStyle, PrettyTable, TableStyle, VRuleStyle

from quantnas_ext.errors import InputError

if TYPE_CHECKING:
    from quantnas_ext.costs.counted import CountedCost

MISSING = "-"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: where a row holds its value.
        heading: what stands above the column.
        show: turns a value into text.
    """

    key: str
    heading: str
    show: Callable[[Any], str] = str


def number_text(value: float, form: str) -> str:
    """A number as ``format`` shows it; an infinite one, such as the PSNR of equal images in dB, as ``∞``."""
    return format(value, form) if not math.isinf(value) else "∞" if value > 0 else "-∞"


def decimals(count: int) -> Callable[[float], str]:
    """Shows numbers with a fixed number of decimals."""
    return lambda value: number_text(value, f".{count}f")


def si_prefix(unit: str = "") -> Callable[[float], str]:
    """Shows numbers with two decimals and an SI prefix: 1930000000 as ``1.93 G``."""

    def show(value: float) -> str:
        from matplotlib.ticker import EngFormatter  # here, so that tables without it do not import matplotlib

        return EngFormatter(unit, places=2)(value).strip()

    return show


PSNR = Column("psnr", "PSNR, dB", decimals(2))
SSIM = Column("ssim", "SSIM", decimals(4))
LPIPS = Column("lpips", "LPIPS", decimals(4))


def cost_column(cost: CountedCost) -> Column:
    """The column for a cost, under the key that it has in files of scores: ``BitOps at 32 × 32``."""
    title, unit = {"bitops": ("BitOps", ""), "bytes": ("parameters", "B")}.get(cost.name, (cost.name, ""))
    return Column(cost.key, title + _at(cost), si_prefix(unit))


def costs_text(costs: Iterable[CountedCost], separator: str = ", ") -> str:
    """Costs in a line: ``1.93 GBitOps at 32 × 32, 35.21 kB of parameters``."""
    units = {"bitops": ("BitOps", ""), "bytes": ("B", " of parameters")}
    words = [(cost, *units.get(cost.name, ("", f" {cost.name}"))) for cost in costs]
    return separator.join(si_prefix(unit)(cost.value) + what + _at(cost) for cost, unit, what in words)


def _at(cost: CountedCost) -> str:
    side = cost.place if "x" in cost.place or not cost.place else f"{cost.place} × {cost.place}"
    return f" at {side}" if side else ""


def format_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column | str], *, markdown: bool = False) -> str:
    """A table with a line a row; numbers are aligned to the right, text to the left.

    Args:
        rows: the values of each row by key; what a row lacks, or holds as None, becomes ``-``.
        columns: the columns in their order; a string stands for a column whose key and heading it is.
        markdown: Markdown instead of plain text.

    Raises:
        InputError: when a column has a key that no row knows, or two columns share a heading.
    """
    chosen = [Column(column, column) if isinstance(column, str) else column for column in columns]
    headings = [column.heading for column in chosen]
    if len(set(headings)) < len(headings):
        raise InputError(f"two columns of the table share a heading: {', '.join(headings)}; name each differently")
    for column in chosen:
        if rows and not any(column.key in row for row in rows):
            raise InputError(f"no row of the table has {column.key!r}; the rows have {', '.join(map(str, rows[0]))}")
    table = PrettyTable(headings)
    if markdown:
        table.set_style(TableStyle.MARKDOWN)
    else:
        table.hrules, table.vrules = HRuleStyle.HEADER, VRuleStyle.NONE
        table.left_padding_width, table.right_padding_width = 0, 2
        table.junction_char = "-"
    for column in chosen:
        numeric = all(isinstance(row.get(column.key), (int, float, type(None))) for row in rows)
        table.align[column.heading] = "r" if numeric else "l"
    for row in rows:
        values = [row.get(column.key) for column in chosen]
        texts = [MISSING if value is None else column.show(value) for column, value in zip(chosen, values, strict=True)]
        if markdown:  # a text stays within its cell
            texts = [text.replace("|", "\\|").replace("\n", " ") for text in texts]
        table.add_row(texts)
    return "\n".join(line.rstrip() for line in table.get_string().splitlines())
