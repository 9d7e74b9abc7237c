"""What a report's page is built of: sections of plots, tables and texts. The template knows these and nothing else.

Texts in blocks are plain: the template escapes them. The one exception is a plot, whose SVG comes from `figures`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from augkd.recipe.units import show_bytes


@dataclass(frozen=True)
class Cell:
    """A table's cell: `shade` from 0 to 10 colours it, `href` makes it a link."""

    text: str
    shade: int | None = None
    href: str | None = None


Row = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """Rows below a head; the first cell of each row is its header."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]
    corner: str = ""  # what the columns of a matrix are, said above them
    kind: str = "table"


@dataclass(frozen=True)
class Plot:
    """A drawing with the sentence that says what it shows."""

    svg: str
    caption: str
    kind: str = "plot"


@dataclass(frozen=True)
class Words:
    """Texts made from originals: each original, and its texts as (word, whether it was replaced)."""

    groups: Sequence[tuple[str, Sequence[Sequence[tuple[str, bool]]]]]
    kind: str = "words"


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    label: str
    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Explorer:
    """Where the script puts the transfer set."""

    kind: str = "explorer"


Block = Table | Plot | Words | Code | Explorer


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, blocks."""

    id: str
    title: str
    lead: str
    blocks: Sequence[Block] = ()


def figure(value: float | None, sign: str = "") -> str:
    """A metric's value with four decimals; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:{sign}.4f}".replace("-", "−")


def count(value: float | None) -> str:
    """A number of things."""
    return "–" if value is None else f"{value:,.0f}"


def share(part: float, whole: float) -> str:
    """A share in per cent."""
    return "–" if not whole else f"{100 * part / whole:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"


def size(value: int | None) -> str:
    """Bytes as a person says them."""
    return "–" if value is None else show_bytes(value)


def shaded(values: Sequence[Sequence[float]], texts: Sequence[Sequence[str]]) -> list[list[Cell]]:
    """Cells whose shade is their value's share of the largest."""
    largest = max((value for row in values for value in row), default=0.0) or 1.0
    return [
        [Cell(text, math.ceil(10 * max(0.0, value) / largest)) for value, text in zip(row, said, strict=True)]
        for row, said in zip(values, texts, strict=True)
    ]
