"""A row's label as its columns hold it: one cell, a cell of several labels, or a column of 0 and 1 for each label.

Several labels always leave here as a list, whatever they were written as; None is a row without a label, and an empty
list one that has none of the labels. An empty cell can mean either, so it means the first unless the user says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from augkd.data.formats import Row
from augkd.errors import DataError, short_repr

_CHOICES = '{"choices"'  # how Label Studio's CSV export begins a cell of several labels; one label is a plain name
_ONE_HOT = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True}


@dataclass(frozen=True)
class LabelColumns:
    """Where a task's labels are written, and how."""

    columns: tuple[str, ...]  # one; or one for each label, which hold 0 or 1; () where there are none
    one_hot: bool = False
    separator: str | None = None  # between the labels of a cell
    empty_is_none: bool = False  # whether an empty cell is a text with none of several labels
    null: int | None = None  # the label that stands for none: -1 in Hub data sets

    def read(self, row: Row, where: str) -> Any:
        """The label of a row: as written, a list of several, or None; raises DataError for a cell that is neither."""
        if self.one_hot:
            return _one_hot(row, self.columns, where)
        if not self.columns:
            return None
        value = row.get(self.columns[0])
        empty = value is None or (isinstance(value, str) and not value.strip())
        if empty:
            return [] if self.empty_is_none else None
        if self.separator is not None:
            return _split(value, self.separator, where)
        if isinstance(value, str) and value.lstrip().startswith(_CHOICES):
            return _choices(value)
        if isinstance(value, list | tuple):
            return list(value)
        return None if self.null is not None and value == self.null else value


def _choices(value: str) -> Any:
    """The labels of a cell of Label Studio's; the cell as it is where it is none."""
    try:
        cell = json.loads(value)
    except (ValueError, RecursionError):
        return value
    chosen = cell["choices"]
    return chosen if set(cell) == {"choices"} and isinstance(chosen, list) else value


def _split(value: Any, separator: str, where: str) -> list[str]:
    if isinstance(value, list | dict):
        raise DataError(f"{where}: label {short_repr(value)} needs no separator; drop task.separator")
    return [part.strip() for part in str(value).split(separator) if part.strip()]


def _one_hot(row: Row, columns: Sequence[str], where: str) -> list[str] | None:
    values = {name: row.get(name) for name in columns}
    empty = [name for name, value in values.items() if value is None or str(value).strip() == ""]
    if len(empty) == len(columns):
        return None
    if empty:
        raise DataError(f"{where}: column {empty[0]!r} is empty where others of the label's columns are not; fill it")
    for name, value in values.items():
        if str(value).strip().lower() not in _ONE_HOT:
            raise DataError(
                f"{where}: column {name!r} is {short_repr(value)}, not 0 or 1; label: [...] names columns of 0 and 1"
            )
    return [name for name, value in values.items() if _ONE_HOT[str(value).strip().lower()]]
