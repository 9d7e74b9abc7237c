"""The rows of a spreadsheet: .xlsx, .xls, .ods, by python-calamine. The first row names the columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from augkd.errors import DamagedFileError, DataError, did_you_mean, first_line

WORKBOOKS = (".xlsx", ".xls", ".ods")


def workbook_rows(path: Path, sheet: str | None) -> Iterator[list[Any]]:
    """The rows of a sheet that are not blank, the header first: whole numbers as int, empty cells as None.

    Raises DataError for a sheet that is not there or not named where there are several, and without python-calamine.
    """
    for row in _cells(path, sheet):
        cells = [_value(cell) for cell in row]
        if any(cell is not None for cell in cells):
            yield cells


def _cells(path: Path, sheet: str | None) -> Iterator[list[Any]]:
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ModuleNotFoundError:
        raise DataError(f"to read {path}, augkd needs python-calamine; pip install 'augkd[files]'") from None

    try:
        with CalamineWorkbook.from_path(path) as book:
            filled = [name for name in book.sheet_names if book.get_sheet_by_name(name).height]
            yield from book.get_sheet_by_name(_chosen(path, sheet, filled)).iter_rows()
    except (CalamineError, OSError) as exc:
        raise DamagedFileError(f"{path} is not a readable workbook ({first_line(exc)}); save it again") from exc


def _chosen(path: Path, sheet: str | None, filled: list[str]) -> str:
    if sheet is not None:
        if sheet not in filled:
            raise DataError(f"{path} has no sheet {sheet!r} with cells{did_you_mean(sheet, filled)}")
        return sheet
    if len(filled) != 1:
        names = ", ".join(map(repr, filled)) or "none"
        raise DataError(
            f"{path} has {len(filled)} sheets with cells ({names}); name one with sheet: … (--sheet of init)"
        )
    return filled[0]


def _value(cell: Any) -> Any:
    if cell == "" and isinstance(cell, str):
        return None
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell
