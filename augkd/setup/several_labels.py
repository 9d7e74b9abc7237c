"""Recognises texts with several labels: a column of lists, columns of 0 and 1, or names with a separator between them.

A separator counts only where its parts are labels elsewhere too: in `a|b`, `a` and `b`, but not in `Paris, France`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

SEPARATORS = ("|", ";", ",")
_YES_NO = {"0", "1", "true", "false", "0.0", "1.0"}
_DECIMAL = re.compile(r"[+-]?\d+,\d+")  # 4,5 may be a number, as it is written in much of Europe


def list_column(values: Mapping[str, Sequence[Any]], taken: Collection[str | None]) -> str | None:
    """The first column whose values are lists of short names or numbers; None without one."""
    for name, column in values.items():
        lists = [value for value in column if value is not None]
        if name not in taken and lists and all(isinstance(value, list) and _are_labels(value) for value in lists):
            return name
    return None


def _are_labels(value: Sequence[Any]) -> bool:
    return all(isinstance(one, str | int) and len(str(one)) <= 60 for one in value)


def yes_no_columns(values: Mapping[str, Sequence[Any]], taken: Collection[str | None]) -> tuple[str, ...]:
    """The columns that hold both 0 and 1 and nothing else, where there are two or more; else ()."""
    found = tuple(name for name, column in values.items() if name not in taken and _is_yes_no(column))
    return found if len(found) > 1 else ()


def _is_yes_no(column: Sequence[Any]) -> bool:
    written = {str(value).strip().lower() for value in column if value is not None and str(value).strip()}
    return len(written) > 1 and written <= _YES_NO


def separator_of(column: Sequence[Any]) -> str | None:
    """What separates the labels of a column's cells; None where each cell is one label."""
    cells = {value.strip() for value in column if isinstance(value, str) and value.strip()}
    if all(_DECIMAL.fullmatch(cell) or "," not in cell for cell in cells) and any(map(_DECIMAL.fullmatch, cells)):
        return None
    for separator in SEPARATORS:
        several = [[part.strip() for part in cell.split(separator)] for cell in cells if separator in cell]
        parts = {part for cell in cells for part in (one.strip() for one in cell.split(separator)) if part}
        if several and all(part for row in several for part in row) and len(parts) < len(cells):
            return separator
    return None
