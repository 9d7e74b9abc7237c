"""Building blocks of a report page: sections of plots, tables and texts. The template knows nothing else.

Texts in blocks are plain: the template escapes them. The only exception is a plot, whose SVG comes from `figures`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from augkd.recipe.units import format_bytes, format_seconds


@dataclass(frozen=True)
class Cell:
    """A table cell: `shade` from 0 to 10 colours it, `href` makes it a link."""

    text: str
    shade: int | None = None
    href: str | None = None


Row = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its header."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]
    corner: str = ""  # heading above the columns of a matrix
    kind: str = "table"


@dataclass(frozen=True)
class Plot:
    """An SVG plot, with a sentence that states what it shows."""

    svg: str
    caption: str
    kind: str = "plot"


@dataclass(frozen=True)
class Words:
    """Originals, each with the texts made from it as (word, whether it was replaced)."""

    groups: Sequence[tuple[str, Sequence[Sequence[tuple[str, bool]]]]]
    kind: str = "words"


@dataclass(frozen=True)
class Code:
    """Code to copy."""

    label: str
    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Explorer:
    """The transfer set, to be filled in by the page's script."""

    kind: str = "explorer"


Block = Table | Plot | Words | Code | Explorer


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph and blocks."""

    id: str
    title: str
    intro: str
    blocks: Sequence[Block] = ()


def decimal(value: float | None, sign: str = "") -> str:
    """A number with four decimals; a dash for none."""
    return "–" if value is None or math.isnan(value) else f"{value:{sign}.4f}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number with thousands separators; a dash for none."""
    return "–" if value is None else f"{value:,.0f}"


def percent(part: float, whole: float) -> str:
    """A share as a percentage; a dash for a share of nothing."""
    return "–" if not whole else f"{100 * part / whole:.1f} %"


def duration(seconds: float) -> str:
    """A time in seconds, with a decimal below a minute."""
    return f"{seconds:.1f} s" if seconds < 60 else format_seconds(seconds)


def size(value: int | None) -> str:
    """A size in bytes; a dash for none."""
    return "–" if value is None else format_bytes(value)


def shaded(values: Sequence[Sequence[float]], texts: Sequence[Sequence[str]]) -> list[list[Cell]]:
    """Cells shaded by their value's share of the largest."""
    largest = max((value for row in values for value in row), default=0.0) or 1.0
    return [
        [Cell(text, math.ceil(10 * max(0.0, value) / largest)) for value, text in zip(row, row_texts, strict=True)]
        for row, row_texts in zip(values, texts, strict=True)
    ]
