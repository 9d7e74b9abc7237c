"""Tables of labelled texts as a user would bring them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.tiny import sentences


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Writes a CSV file and returns its path."""
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return str(path)


def labelled(path: Path, header: Sequence[str] = ("text", "label"), count: int = 90) -> str:
    """A CSV file with `count` sentences of the tiny task."""
    return table(path, header, [row for start in (0, 5, 10) for row in sentences(start)][:count])
