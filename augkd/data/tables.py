"""Rows from wherever people keep text: .txt, .csv, .tsv, .jsonl, .parquet, compressed text, and the Hugging Face Hub.

Every reader is a generator that holds one row (Parquet: one batch) at a time, so a file may be larger than memory.
`read_rows`, for labelled data, raises at the first damage with its file and line. `read_texts`, for a corpus of hours,
hands damage on as a value between the texts, to be counted; neither skips a row in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from augkd.data.formats import (
    SUPPORTED,
    Damaged,
    DamagedFileError,
    batches_of,
    first_line,
    head_of,
    kind_of,
    open_parquet,
    rows_of,
    values_of,
)
from augkd.data.formats import Row as Row  # part of what this module gives
from augkd.errors import DataError, did_you_mean

_SIDECARS = {"labels.json", "manifest.json", "building.json", "dataset_infos.json", "dataset_info.json", "state.json"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_RAW_BYTE = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of a byte that is not UTF-8


# ---- finding ----


def local_path(dataset: str) -> Path | None:
    """The file or folder `dataset` names; None when it can only be a Hub name."""
    path = Path(dataset).expanduser()
    if path.exists():
        return path
    if dataset.startswith((".", "/", "~")) or kind_of(path):
        raise DataError(f"dataset {dataset!r} does not exist (looked in {Path.cwd()}); correct the path")
    return None


def data_files(path: Path) -> list[Path]:
    """A file itself; of a folder, its supported files in name order, with those of its folders that are not hidden."""
    if not path.exists():
        raise DataError(f"{path} does not exist; correct the path")
    if not path.is_dir():
        if kind_of(path) is None:
            raise DataError(f"{path} is of no kind augkd reads; give {SUPPORTED}")
        return [path]
    found = [file for file in path.rglob("*") if _is_data(file, path)]
    if not found:
        raise DataError(f"folder {path} has no data file; put {SUPPORTED} there")
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def _is_data(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.name not in _SIDECARS and kind_of(file) is not None and file.is_file()


# ---- reading ----


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of one file in order, with only `columns` when given (a column the file lacks is left out).

    Raises DataError at the first row that is malformed or not UTF-8, and where the file is cut short.
    """
    for number, row in enumerate(rows_of(path, columns), 1):
        if isinstance(row, Damaged):
            raise DataError(row.message)
        chosen = row if columns is None else {name: row[name] for name in columns if name in row}
        yield {name: _checked(value, path, number, name) for name, value in chosen.items()}


def read_texts(path: Path, column: str) -> Iterator[Any]:
    """One column of one file: a value for each row, `Damaged` for a malformed one, and last where a file is cut short.

    Bytes that are not UTF-8 stand as lone surrogates. Raises DataError when the file has no such column.
    """
    try:
        names = list(dict.fromkeys(name for row in head_of(path) if isinstance(row, dict) for name in row))
        if names:  # an empty .jsonl has no columns and no rows
            check_column(column, names, str(path))
        if kind_of(path) == ".parquet":
            for batch in batches_of(path, [column]):
                yield from values_of(batch.column(0))
        else:
            for row in rows_of(path, None):
                yield row if isinstance(row, Damaged) else row.get(column)
    except DamagedFileError as exc:
        yield Damaged(str(exc), whole=True)


def check_column(column: str, names: Sequence[str], where: str) -> None:
    """Raises DataError when a corpus has no such column."""
    if column not in names:
        close = did_you_mean(column, names)
        advice = close if close.endswith("?") else "; name the text column with `text`"
        raise DataError(f"{where} has no column {column!r} (it has: {', '.join(names)}){advice}")


def column_names(path: Path) -> list[str]:
    """The columns of one file; of JSON lines, the keys of the first 100 rows."""
    rows = list(head_of(path))
    for row in rows:
        if isinstance(row, Damaged):
            raise DataError(row.message)
    return list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))


def parquet_count(path: Path) -> int | None:
    """Rows of a Parquet file, from its footer alone; None when that is damaged."""
    try:
        return int(open_parquet(path).metadata.num_rows)
    except DamagedFileError:
        return None


def _checked(value: Any, path: Path, number: int, name: str) -> Any:
    """A lone surrogate in an escape ("\\ud800") is legal JSON, but no tokenizer and no Parquet writer takes it."""
    if not isinstance(value, str) or value.isascii():
        return value
    if found := _RAW_BYTE.search(value):
        byte = f"byte 0x{ord(found[0]) - 0xDC00:02x}"
        raise DataError(f"{path} row {number}: column {name!r} is not UTF-8 ({byte}); save the file as UTF-8")
    return _SURROGATE.sub("\ufffd", value)


# ---- the Hub ----


def from_hub(dataset: str, config: str | None, **options: Any) -> Any:
    """`datasets.load_dataset`, with whatever goes wrong there told in one line."""
    import datasets

    try:
        return datasets.load_dataset(dataset, config, **options)
    except Exception as exc:  # the Hub's clients raise their own, httpx's and built-in errors
        raise DataError(
            f"dataset {dataset!r} is no file or folder here and cannot be loaded from the Hub ({first_line(exc)}); "
            "correct the name or the config, or give a path"
        ) from exc
