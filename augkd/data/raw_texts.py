"""The text column of a corpus, row by row, from files, the Hub or the built-in docstrings; nothing is judged yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from augkd.data.reading import AS_IT_IS, Reading
from augkd.data.tables import DOCSTRINGS, check_column, data_files, from_hub, local_path, read_texts
from augkd.errors import DataError, first_line


class RawText(NamedTuple):
    """The value of one row; `value` is of any type, or `Damaged`."""

    file: str  # as a path below the corpus's folder, or the name of the data set
    row: int  # from 1
    value: Any


def raw_texts(
    dataset: str, column: str, split: str, config: str | None, reading: Reading = AS_IT_IS
) -> Iterator[RawText]:
    """Column `column` of every row, files in name order; `split` and `config` are for Hub names.

    Raises DataError for a data set that cannot be read or has no such column.
    """
    if dataset == DOCSTRINGS:
        from augkd.data.docstrings import corpus_texts

        for row, text in enumerate(corpus_texts(), 1):
            yield RawText(DOCSTRINGS, row, text)
        return
    path = local_path(dataset)
    if path is None:
        for row, text in enumerate(_hub_texts(dataset, column, split, config), 1):
            yield RawText(dataset, row, text)
        return
    for file in data_files(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        for row, value in enumerate(read_texts(file, column, reading), 1):
            yield RawText(name, row, value)


def _hub_texts(dataset: str, column: str, split: str, config: str | None) -> Iterator[Any]:
    where = f"Hub data set {dataset!r}"
    rows = iter(from_hub(dataset, config, split=split, streaming=True))
    number = 0
    while True:
        try:
            row = next(rows, None)
        except Exception as exc:  # the connection may fail long after it was opened
            raise DataError(f"{where} failed after row {number} ({first_line(exc)}); run again") from exc
        if row is None:
            return
        number += 1
        if number == 1:
            check_column(column, list(row), where)
        yield row.get(column)
