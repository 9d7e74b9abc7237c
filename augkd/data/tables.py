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

from augkd.data.compression import open_bytes
from augkd.data.formats import SUPPORTED, Damaged, Row, format_of, head_of, rows_of, unsupported
from augkd.data.parquet import parquet_column
from augkd.data.reading import AS_IT_IS, Reading, guess_encodings
from augkd.errors import DamagedFileError, DataError, did_you_mean, first_line
from augkd.workspace.cache import data_here
from augkd.workspace.names import user_path
from augkd.workspace.progress import Progress, silent
from augkd.workspace.storage import url_of

_SAMPLE = 1 << 16  # bytes that an encoding is guessed from
DOCSTRINGS = "augkd:docstrings"  # the name of the built-in task and corpus
FACTS = "labels.json"  # in the folder of a task: what its columns and labels mean
_SIDECARS = {FACTS, "manifest.json", "building.json", "dataset_infos.json", "dataset_info.json", "state.json"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_RAW_BYTE = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as `surrogateescape` decodes it


# ---- finding ----


def local_path(dataset: str, progress: Progress = silent) -> Path | None:
    """The file or folder `dataset` names, None when it can only be a Hub name; of a URL, its copy on this machine.

    Raises DataError for a missing path, and for a URL without a data file.
    """
    if (url := url_of(dataset)) is not None:
        path = data_here(url, is_wanted, progress)
        if path is None:
            raise DataError(f"{url} has no data file; give the address of {SUPPORTED}, or of a folder of them")
        return path
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


def is_wanted(name: str) -> bool:
    """Whether a file below a URL is read, by its path: what `data_files` finds in a folder, and facts about a task."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    last = name.rsplit("/", 1)[-1]
    return not hidden and (name == FACTS or (last not in _SIDECARS and format_of(Path(last)) is not None))


# ---- reading ----


def read_rows(path: Path, columns: Sequence[str] | None = None, reading: Reading = AS_IT_IS) -> Iterator[Row]:
    """The rows of one file in order, with only `columns` when given; a column the file lacks is left out.

    A field of a table within a row is a column as well, named `column.field`.

    Raises DataError at the first row that is malformed or not in the file's encoding, and where the file is truncated.
    """
    for number, row in enumerate(rows_of(path, columns, reading), 1):
        if isinstance(row, Damaged):
            raise DataError(row.message)
        row = _with_fields(row)
        chosen = row if columns is None else {name: row[name] for name in columns if name in row}
        yield {name: _checked(value, path, number, name, reading) for name, value in chosen.items()}


def read_texts(path: Path, column: str, reading: Reading = AS_IT_IS) -> Iterator[Any]:
    """One column of one file: a value per row, `Damaged` for a malformed row and, last, for a truncated file.

    Bytes that are not in the file's encoding come as lone surrogates, a binary value as the text that it holds. Raises
    DataError when the file has no such column.
    """
    try:
        names = list(
            dict.fromkeys(name for row in head_of(path, reading) if isinstance(row, dict) for name in _with_fields(row))
        )
        if names:  # an empty .jsonl has no columns and no rows
            check_column(column, names, str(path))
        if format_of(path) == ".parquet":
            for value in parquet_column(path, column):
                yield value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        else:
            for row in rows_of(path, None, reading):
                yield row if isinstance(row, Damaged) else _with_fields(row).get(column)
    except DamagedFileError as exc:
        yield Damaged(str(exc), whole=True)


def _with_fields(row: Row) -> Row:
    """The row with the fields of tables within it."""
    tables = [(name, value) for name, value in row.items() if isinstance(value, dict)]
    return {f"{name}.{field}": one for name, value in tables for field, one in value.items()} | row if tables else row


def check_column(column: str, names: Sequence[str], where: str) -> None:
    """Raises DataError when `names`, the columns of a corpus, lack `column`."""
    if column not in names:
        suggestion = did_you_mean(column, names)
        advice = suggestion if suggestion.endswith("?") else "; name the text column with `text`"
        raise DataError(f"{where} has no column {column!r} (it has: {', '.join(names)}){advice}")


def column_names(path: Path, reading: Reading = AS_IT_IS) -> list[str]:
    """The columns of one file; for JSON, the keys of the first 100 rows."""
    rows = list(head_of(path, reading))
    for row in rows:
        if isinstance(row, Damaged):
            raise DataError(row.message)
    return list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in _with_fields(row)))


def _checked(value: Any, path: Path, number: int, name: str, reading: Reading) -> Any:
    """Raises DataError for bytes that are not in the file's encoding, and replaces other lone surrogates.

    An escape such as "\\ud800" is legal JSON, but no tokenizer and no Parquet writer accepts it. A binary value is the
    text that it holds, where it holds one.
    """
    if isinstance(value, bytes):
        value = _text_of(value)
    if not isinstance(value, str) or value.isascii():
        return value
    if match := _RAW_BYTE.search(value):
        byte = f"byte 0x{ord(match[0]) - 0xDC00:02x}"
        encoding = reading.encoding or "UTF-8"
        raise DataError(f"{path} row {number}: column {name!r} is not {encoding} ({byte}); {encoding_advice(path)}")
    return _SURROGATE.sub("\ufffd", value)


def _text_of(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value  # an image, perhaps: an error only where a text or a label is read from it


def encoding_advice(path: Path) -> str:
    """What to do about a file that is not UTF-8: the encodings that it may be in, and the option to give."""
    advice = "save the file as UTF-8, or name its encoding"
    try:
        found = file_encodings(path)
    except DataError as exc:
        return f"{advice}, such as encoding: cp1252 ({exc})"
    shown = " or ".join(f"{name} ({word!r})" for name, word in found)
    return f"{advice}; it looks like {shown}: set encoding: {found[0][0]}" if found else f"{advice} with encoding: …"


def file_encodings(path: Path) -> list[tuple[str, str]]:
    """The encodings that a file may be in, likeliest first, each with a word as it reads it."""
    with open_bytes(path) as stream:
        return guess_encodings(stream.read(_SAMPLE))


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
