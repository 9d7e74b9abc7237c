"""The rows of one file: .txt, .csv, .tsv, .jsonl and .parquet, plain or compressed; a damaged row becomes a value.

`tables` decides what damage means: an error for labelled data, a count for a corpus. No more than one row (of Parquet:
one batch) is held in memory.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import zstandard

from augkd.data.compression import PACKED, open_text
from augkd.data.parquet import parquet_columns, parquet_rows
from augkd.errors import DamagedFileError, DataError, first_line, short_repr

Row = dict[str, Any]

SUPPORTED = ".txt, .csv, .tsv, .jsonl (also .gz, .zst) and .parquet"

_FORMATS = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")
_FIELD_LIMIT = 1 << 24  # characters of one CSV field: an unclosed quote must not read the whole file into memory
_BROKEN = (EOFError, OSError, zlib.error, zstandard.ZstdError)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True, slots=True)
class Damaged:
    """Stands for a row that cannot be read, or with `whole` for the rest of a file."""

    message: str
    whole: bool = False


def format_of(path: Path) -> str | None:
    """The format by the file's name (`.csv` for `a.csv.gz`); None when it is not one we read."""
    name = path.name.lower()
    packed = name.endswith(PACKED)
    suffix = Path(name.rsplit(".", 1)[0] if packed else name).suffix
    return suffix if suffix in _FORMATS and not (packed and suffix == ".parquet") else None


def unsupported(path: Path) -> DataError:
    """The error for a file whose format is not one we read."""
    return DataError(f"{path} has an unsupported file type; give {SUPPORTED}")


def rows_of(path: Path, columns: Sequence[str] | None) -> Iterator[Row | Damaged]:
    """The rows of a file in order, damaged ones as `Damaged`; of Parquet only `columns`.

    Raises DataError for an unsupported file type, DamagedFileError where the rest of the file cannot be read.
    """
    kind = format_of(path)
    if kind is None:
        raise unsupported(path)
    count = 0
    try:
        for row in parquet_rows(path, columns) if kind == ".parquet" else _text_rows(path, kind):
            yield row
            count += 1
    except _BROKEN as exc:
        raise _read_error(path, exc, f"after row {count}") from exc


def head_of(path: Path) -> Iterator[Row | Damaged]:
    """Rows that have all column names: the first 100 of JSON lines, else one made from the header."""
    kind = format_of(path)
    if kind in (".csv", ".tsv"):
        try:
            with open_text(path, keep_line_ends=kind == ".csv") as stream:
                yield dict.fromkeys(_header(_fields(path, stream, kind), path))
        except _BROKEN as exc:
            raise _read_error(path, exc, "in line 1") from exc
    elif kind == ".parquet":
        yield dict.fromkeys(parquet_columns(path))
    elif kind == ".txt":
        yield {"text": None}
    else:
        yield from itertools.islice(rows_of(path, None), 100)


def _read_error(path: Path, exc: Exception, where: str) -> DataError:
    if (
        isinstance(exc, OSError) and exc.errno is not None
    ):  # the system's; gzip and Arrow raise OSError without a number
        return DataError(f"{path} cannot be read {where} ({first_line(exc)}); check the path and its permissions")
    return DamagedFileError(f"{path} is damaged {where} ({first_line(exc)}); copy or write it again")


def _text_rows(path: Path, kind: str) -> Iterator[Row | Damaged]:
    with open_text(path, keep_line_ends=kind == ".csv") as stream:
        if kind == ".txt":
            for line in stream:
                yield {"text": line.rstrip("\r\n")}
        elif kind in (".csv", ".tsv"):
            yield from _separated(path, stream, kind)
        else:
            yield from _json_lines(path, stream)


# ---- JSON lines ----


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[Row | Damaged]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as exc:
            content = short_repr(line[:200].strip())
            yield Damaged(
                f"{path} line {number} is not valid JSON ({first_line(exc)}): {content}; write one object per line"
            )
            continue
        if isinstance(row, dict):
            yield row
        else:
            advice = 'write rows as {"text": …}, one per line'
            yield Damaged(f"{path} line {number} is a {type(row).__name__}, not an object: {short_repr(row)}; {advice}")


# ---- CSV and TSV ----


def _separated(path: Path, stream: TextIO, kind: str) -> Iterator[Row | Damaged]:
    rows = _fields(path, stream, kind)
    header = _header(rows, path)
    advice = "quote fields that hold commas" if kind == ".csv" else "save texts that hold tabs or line breaks as .csv"
    for line, fields in rows:
        if isinstance(fields, Damaged):
            yield fields
        elif len(fields) == len(header):
            yield dict(zip(header, fields, strict=True))
        else:
            content = short_repr([field[:60] for field in fields[:9]])
            sizes = f"{len(fields)} fields, its header has {len(header)}"
            yield Damaged(f"{path} line {line} has {sizes}: {content}; {advice}")


def _fields(path: Path, stream: TextIO, kind: str) -> Iterator[tuple[int, list[str] | Damaged]]:
    """Line number and fields of each line that is not blank.

    A tab-separated file has no quoting (IANA; GLUE's files hold stray quotes), but a field quoted as a whole is
    unquoted.
    """
    if kind == ".tsv":
        for number, line in enumerate(stream, 1):
            if line.strip("\r\n"):
                yield number, [_unquoted(field) for field in line.rstrip("\r\n").split("\t")]
        return
    csv.field_size_limit(max(_FIELD_LIMIT, csv.field_size_limit()))
    reader = csv.reader(stream, strict=True)
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as exc:  # the reader goes on with the next line
            message = f"{path} line {reader.line_num} is not valid CSV ({first_line(exc)}); close or double its quotes"
            yield reader.line_num, Damaged(message)
            continue
        if fields is None:
            return
        if fields:
            yield reader.line_num, fields


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if _QUOTED.fullmatch(field) else field


def _header(rows: Iterator[tuple[int, list[str] | Damaged]], path: Path) -> list[str]:
    _, header = next(rows, (0, []))
    if isinstance(header, Damaged):
        raise DamagedFileError(header.message)
    if not header:
        raise DamagedFileError(f"{path} is empty; its first line must name the columns, for example: text,label")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path} names the column {repeated[0]!r} twice in its first line; rename one")
    return header
