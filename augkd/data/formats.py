"""The rows of one file: text, tables, JSON, Parquet and workbooks, text also compressed; a damaged row becomes a value.

`tables` decides what damage means: an error for labelled data, a count for a corpus. No more than one row (of Parquet:
one batch) is held in memory.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import zstandard

from augkd.data.compression import PACKED, open_text
from augkd.data.dialects import HEAD, dialect_of, rows_in
from augkd.data.json_rows import BadRow, json_rows
from augkd.data.parquet import parquet_columns, parquet_rows
from augkd.data.reading import AS_IT_IS, Reading
from augkd.data.workbooks import WORKBOOKS, workbook_rows
from augkd.errors import DamagedFileError, DataError, first_line, short_repr

Row = dict[str, Any]

SUPPORTED = ".txt, .csv, .tsv, .json, .jsonl (also .gz, .zst), .parquet, .xlsx, .xls and .ods"

_JSON = (".json", ".jsonl")
TEXT = (".txt", ".csv", ".tsv", *_JSON)  # may be compressed
_FORMATS = (*TEXT, ".parquet", *WORKBOOKS)
_ADVICE = {
    ".csv": "quote fields that hold commas, or name the delimiter",
    ".tsv": "save texts that hold tabs or line breaks as .csv",
} | dict.fromkeys(WORKBOOKS, "name every column in the first row")
_FIELD_LIMIT = 1 << 24  # characters of one CSV field: an unclosed quote must not read the whole file into memory
_BROKEN = (EOFError, OSError, UnicodeError, zlib.error, zstandard.ZstdError)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True, slots=True)
class Damaged:
    """Stands for a row that cannot be read, or with `whole` for the rest of a file."""

    message: str
    whole: bool = False


Fields = list[Any] | Damaged


def format_of(path: Path) -> str | None:
    """The format by the file's name (`.csv` for `a.csv.gz`); None when it is not one we read."""
    name = path.name.lower()
    packed = name.endswith(PACKED)
    suffix = Path(name.rsplit(".", 1)[0] if packed else name).suffix
    return suffix if suffix in (TEXT if packed else _FORMATS) else None


def is_missing(value: Any) -> bool:
    """Whether a cell has no value: None, or the NaN that pandas writes for it, also into JSON."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def unsupported(path: Path) -> DataError:
    """The error for a file whose format is not one we read."""
    return DataError(f"{path} has an unsupported file type; give {SUPPORTED}")


def rows_of(path: Path, columns: Sequence[str] | None, reading: Reading = AS_IT_IS) -> Iterator[Row | Damaged]:
    """The rows of a file in order, damaged ones as `Damaged`; of Parquet only `columns`.

    Raises DataError for an unsupported file type, DamagedFileError where the rest of the file cannot be read.
    """
    kind = format_of(path)
    if kind is None:
        raise unsupported(path)
    count = 0
    try:
        for row in parquet_rows(path, columns) if kind == ".parquet" else _rows(path, kind, reading):
            yield row
            count += 1
    except _BROKEN as exc:
        raise _read_error(path, exc, f"after row {count}") from exc


def head_of(path: Path, reading: Reading = AS_IT_IS) -> Iterator[Row | Damaged]:
    """Rows that have all column names: the first 100 of JSON, else one made from the header."""
    kind = format_of(path)
    if kind == ".parquet":
        yield dict.fromkeys(parquet_columns(path))
    elif kind == ".txt":
        yield {"text": None}
    elif kind in _JSON or kind is None:
        yield from _until_damaged(itertools.islice(rows_of(path, None, reading), 100))
    else:
        try:
            with ExitStack() as stack:
                yield dict.fromkeys(_header(_fields(path, kind, reading, stack), path))
        except _BROKEN as exc:
            raise _read_error(path, exc, "in line 1") from exc


def _until_damaged(rows: Iterator[Row | Damaged]) -> Iterator[Row | Damaged]:
    """The rows before the damage, where there are any: whoever reads the file meets it."""
    count = 0
    try:
        for count, row in enumerate(rows, 1):  # noqa: B007 - used when it breaks
            yield row
    except DamagedFileError:
        if not count:
            raise


def _read_error(path: Path, exc: Exception, where: str) -> DataError:
    if (
        isinstance(exc, OSError) and exc.errno is not None
    ):  # the system's; gzip and Arrow raise OSError without a number
        return DataError(f"{path} cannot be read {where} ({first_line(exc)}); check the path and its permissions")
    return DamagedFileError(f"{path} is damaged {where} ({first_line(exc)}); copy or write it again")


def _rows(path: Path, kind: str, reading: Reading) -> Iterator[Row | Damaged]:
    with ExitStack() as stack:
        if kind == ".txt":
            for line in stack.enter_context(open_text(path, encoding=reading.encoding)):
                yield {"text": line.rstrip("\r\n")}
        elif kind in _JSON:
            stream = stack.enter_context(open_text(path, encoding=reading.encoding))
            for row in json_rows(path, stream, whole=kind == ".json"):
                yield Damaged(str(row)) if isinstance(row, BadRow) else row
        else:
            yield from _table(path, kind, _fields(path, kind, reading, stack))


# ---- tables with a header: CSV, TSV, workbooks ----


def _table(path: Path, kind: str, rows: Iterator[tuple[int, Fields]]) -> Iterator[Row | Damaged]:
    header = _header(rows, path)
    for line, fields in rows:
        if isinstance(fields, Damaged):
            yield fields
        elif len(fields) == len(header):
            yield dict(zip(header, fields, strict=True))
        else:
            content = short_repr([short(field) for field in fields[:9]])
            sizes = f"{len(fields)} fields, its header has {len(header)}"
            yield Damaged(f"{path} line {line} has {sizes}: {content}; {_ADVICE[kind]}")


def short(field: Any) -> Any:
    """A field as a message shows it."""
    return field[:60] if isinstance(field, str) else field


def _fields(path: Path, kind: str, reading: Reading, stack: ExitStack) -> Iterator[tuple[int, Fields]]:
    """Line number and fields of each line that is not blank; the file is closed with `stack`."""
    if kind in WORKBOOKS:
        return enumerate(workbook_rows(path, reading.sheet), 1)
    quoted = kind == ".csv" or reading.delimiter is not None
    stream = stack.enter_context(open_text(path, encoding=reading.encoding, keep_line_ends=quoted))
    return _csv_fields(path, stream, reading.delimiter) if quoted else _tsv_fields(stream)


def _tsv_fields(stream: TextIO) -> Iterator[tuple[int, Fields]]:
    """A tab-separated file has no quoting (IANA; GLUE's files hold stray quotes), but whole fields are unquoted."""
    for number, line in enumerate(stream, 1):
        if line.strip("\r\n"):
            yield number, [_unquoted(field) for field in line.rstrip("\r\n").split("\t")]


def _csv_fields(path: Path, stream: TextIO, delimiter: str | None) -> Iterator[tuple[int, Fields]]:
    csv.field_size_limit(max(_FIELD_LIMIT, csv.field_size_limit()))
    head, rest = _split_head(stream)
    dialect = dialect_of("".join(head), path, delimiter)
    first = 1 if dialect.stated else 0  # lines before the header
    reader = rows_in(itertools.chain(head[first:], rest), dialect)
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as exc:  # the reader goes on with the next line
            line = first + reader.line_num
            yield line, Damaged(f"{path} line {line} is not valid CSV ({first_line(exc)}); close or double its quotes")
            continue
        if fields is None:
            return
        if fields:
            yield first + reader.line_num, fields


def _split_head(stream: TextIO) -> tuple[list[str], Iterator[str]]:
    """The first lines and the others; what breaks among the first is raised where it stands."""
    head: list[str] = []
    size = 0
    try:
        for line in stream:
            head.append(line)
            size += len(line)
            if size >= HEAD:
                break
    except _BROKEN as exc:
        return head, _raising(exc)
    return head, stream


def _raising(exc: Exception) -> Iterator[str]:
    raise exc
    yield ""  # a generator


def describe(path: Path, reading: Reading = AS_IT_IS) -> str:
    """How a file is read, where not as UTF-8 with commas: 'as utf-16, with semicolons between columns'; else ''."""
    kind = format_of(path)
    if kind in WORKBOOKS or kind == ".parquet" or kind is None:
        return f"from sheet {reading.sheet}" if kind in WORKBOOKS and reading.sheet else ""
    try:
        with open_text(path, encoding=reading.encoding, keep_line_ends=True) as stream:
            found = [] if stream.encoding == "utf-8-sig" else [f"as {stream.encoding}"]
            if kind == ".csv" or (kind == ".tsv" and reading.delimiter):
                found.append(dialect_of("".join(_split_head(stream)[0]), path, reading.delimiter).describe())
    except _BROKEN:
        return ""
    return ", ".join(filter(None, found))


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if _QUOTED.fullmatch(field) else field


def _header(rows: Iterator[tuple[int, Fields]], path: Path) -> list[str]:
    _, fields = next(rows, (0, []))
    if isinstance(fields, Damaged):
        raise DamagedFileError(fields.message)
    header = [str(name).strip() if name else f"Unnamed: {place}" for place, name in enumerate(fields)]
    if not header:
        raise DamagedFileError(f"{path} is empty; its first line must name the columns, for example: text,label")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path} names the column {repeated[0]!r} twice in its first line; rename one")
    return header
