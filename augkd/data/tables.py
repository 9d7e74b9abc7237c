"""Finds the data files of a path and reads their rows or texts; loads data sets from the Hugging Face Hub.

Every reader is a generator that holds one row (Parquet: one batch) at a time, so a file may be larger than memory.
`read_rows`, for labelled data, raises at the first damage with its file and line. `read_texts`, for a corpus that takes
hours, yields damage as a value between the texts, to be counted. Neither skips a row silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from augkd.data.formats import SUPPORTED, Damaged, Row, format_of, head_of, rows_of, unsupported
from augkd.data.parquet import parquet_column
from augkd.errors import DamagedFileError, DataError, did_you_mean, first_line
from augkd.workspace.names import user_path

DOCSTRINGS = "augkd:docstrings"  # the name of the built-in task and corpus
_SIDECARS = {"labels.json", "manifest.json", "building.json", "dataset_infos.json", "dataset_info.json", "state.json"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_RAW_BYTE = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as `surrogateescape` decodes it


# ---- finding ----


def local_path(dataset: str) -> Path | None:
    """The file or folder `dataset` names, None when it can only be a Hub name; raises DataError for a missing path."""
    path = user_path(dataset)
    if path.exists():
        return path
    if dataset.startswith((".", "/", "~")) or format_of(path):
        raise DataError(f"dataset {dataset!r} does not exist (looked in {Path.cwd()}); correct the path")
    return None


def data_files(path: Path) -> list[Path]:
    """The path of a file itself; of a folder, its supported files in name order, hidden folders left out."""
    if not path.exists():
        raise DataError(f"{path} does not exist; correct the path")
    if not path.is_dir():
        if format_of(path) is None:
            raise unsupported(path)
        return [path]
    files = [file for file in path.rglob("*") if _is_data(file, path)]
    if not files:
        raise DataError(f"folder {path} has no data file; put {SUPPORTED} there")
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


def _is_data(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.name not in _SIDECARS and format_of(file) is not None and file.is_file()


# ---- reading ----


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of one file in order, with only `columns` when given; a column the file lacks is left out.

    Raises DataError at the first row that is malformed or not UTF-8, and where the file is truncated.
    """
    for number, row in enumerate(rows_of(path, columns), 1):
        if isinstance(row, Damaged):
            raise DataError(row.message)
        chosen = row if columns is None else {name: row[name] for name in columns if name in row}
        yield {name: _checked(value, path, number, name) for name, value in chosen.items()}


def read_texts(path: Path, column: str) -> Iterator[Any]:
    """One column of one file: a value per row, `Damaged` for a malformed row and, last, for a truncated file.

    Bytes that are not UTF-8 come as lone surrogates. Raises DataError when the file has no such column.
    """
    try:
        names = list(dict.fromkeys(name for row in head_of(path) if isinstance(row, dict) for name in row))
        if names:  # an empty .jsonl has no columns and no rows
            check_column(column, names, str(path))
        if format_of(path) == ".parquet":
            yield from parquet_column(path, column)
        else:
            for row in rows_of(path, None):
                yield row if isinstance(row, Damaged) else row.get(column)
    except DamagedFileError as exc:
        yield Damaged(str(exc), whole=True)


def check_column(column: str, names: Sequence[str], where: str) -> None:
    """Raises DataError when `names`, the columns of a corpus, lack `column`."""
    if column not in names:
        suggestion = did_you_mean(column, names)
        advice = suggestion if suggestion.endswith("?") else "; name the text column with `text`"
        raise DataError(f"{where} has no column {column!r} (it has: {', '.join(names)}){advice}")


def column_names(path: Path) -> list[str]:
    """The columns of one file; for JSON lines, the keys of the first 100 rows."""
    rows = list(head_of(path))
    for row in rows:
        if isinstance(row, Damaged):
            raise DataError(row.message)
    return list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))


def _checked(value: Any, path: Path, number: int, name: str) -> Any:
    """Raises DataError for bytes that are not UTF-8, and replaces other lone surrogates.

    An escape such as "\\ud800" is legal JSON, but no tokenizer and no Parquet writer accepts it.
    """
    if not isinstance(value, str) or value.isascii():
        return value
    if match := _RAW_BYTE.search(value):
        byte = f"byte 0x{ord(match[0]) - 0xDC00:02x}"
        raise DataError(f"{path} row {number}: column {name!r} is not UTF-8 ({byte}); save the file as UTF-8")
    return _SURROGATE.sub("\ufffd", value)


# ---- the Hub ----


def from_hub(dataset: str, config: str | None, **options: Any) -> Any:
    """`datasets.load_dataset`; raises DataError in place of the errors of its many libraries."""
    import datasets

    try:
        return datasets.load_dataset(dataset, config, **options)
    except Exception as exc:  # the Hub's clients raise their own, httpx's and built-in errors
        raise DataError(
            f"dataset {dataset!r} is not a file or folder and cannot be loaded from the Hub ({first_line(exc)}); "
            "correct the name or the config, or give a path"
        ) from exc
