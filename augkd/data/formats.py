"""The rows of one file: .txt, .csv, .tsv, .jsonl and .parquet, plain or compressed; what is damaged is told.

`tables` decides what damage means: an error for labelled data, a count for a corpus. Nothing here holds more than one
row (Parquet: one batch, small where rows are large).
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from augkd.errors import DataError, shown

Row = dict[str, Any]

SUPPORTED = ".txt, .csv, .tsv, .jsonl (also .gz, .zst) and .parquet"

_KINDS = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")
_FIELD_LIMIT = 1 << 24  # characters of one CSV field: an unclosed quote must not read the whole file into memory
_BATCH = 1024  # rows of a Parquet batch, fewer where rows are large:
_BATCH_BYTES = 1 << 24
_BROKEN = (EOFError, OSError, zlib.error, zstandard.ZstdError)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True, slots=True)
class Damaged:
    """Stands where a row cannot be read, or with `whole` where the rest of a file cannot."""

    message: str
    whole: bool = False


class DamagedFileError(DataError):
    """The rest of a file cannot be read, whoever tries."""


def kind_of(path: Path) -> str | None:
    """The format by name (`.csv` of `a.csv.gz`); None when it is not one we read."""
    name = path.name.lower()
    packed = name.endswith((".gz", ".zst"))
    suffix = Path(name.rsplit(".", 1)[0] if packed else name).suffix
    return suffix if suffix in _KINDS and not (packed and suffix == ".parquet") else None


def rows_of(path: Path, columns: Sequence[str] | None) -> Iterator[Row | Damaged]:
    kind = kind_of(path)
    if kind is None:
        raise DataError(f"{path} is of no kind augkd reads; give {SUPPORTED}")
    count = 0
    try:
        for row in _parquet(path, columns) if kind == ".parquet" else _text_rows(path, kind):
            yield row
            count += 1
    except _BROKEN as exc:
        raise _damage(path, exc, f"after row {count}") from exc


def head_of(path: Path) -> Iterator[Row | Damaged]:
    """Rows that have all column names: the first 100 of JSON lines, else one made of the header."""
    kind = kind_of(path)
    if kind in (".csv", ".tsv"):
        try:
            with _open_text(path) as stream:
                yield dict.fromkeys(_header(_fields(path, stream, kind), path))
        except _BROKEN as exc:
            raise _damage(path, exc, "in line 1") from exc
    elif kind == ".parquet":
        yield dict.fromkeys(map(str, open_parquet(path).schema_arrow.names))
    elif kind == ".txt":
        yield {"text": None}
    else:
        yield from itertools.islice(rows_of(path, None), 100)


def _damage(path: Path, exc: Exception, where: str) -> DataError:
    if isinstance(exc, OSError) and exc.errno is not None:  # the system's; gzip and Arrow raise it without a number
        return DataError(f"{path} cannot be read {where} ({first_line(exc)}); check the path and its permissions")
    return DamagedFileError(f"{path} is damaged {where} ({first_line(exc)}); copy or write it again")


def _text_rows(path: Path, kind: str) -> Iterator[Row | Damaged]:
    with _open_text(path) as stream:
        if kind == ".txt":
            for line in stream:
                yield {"text": line.rstrip("\r\n")}
        elif kind in (".csv", ".tsv"):
            yield from _separated(path, stream, kind)
        else:
            yield from _json_lines(path, stream)


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[Row | Damaged]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as exc:
            found = shown(line[:200].strip())
            yield Damaged(f"{path} line {number} is not JSON ({first_line(exc)}): {found}; write one object per line")
            continue
        if isinstance(row, dict):
            yield row
        else:
            advice = 'write rows as {"text": …}, one per line'
            yield Damaged(f"{path} line {number} is a {type(row).__name__}, not an object: {shown(row)}; {advice}")


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
            sizes = f"{len(fields)} fields, its header has {len(header)}"
            yield Damaged(f"{path} line {line} has {sizes}: {shown([f[:60] for f in fields[:9]])}; {advice}")


def _fields(path: Path, stream: TextIO, kind: str) -> Iterator[tuple[int, list[str] | Damaged]]:
    """Line number and fields of each line that is not blank.

    A tab-separated file has no quoting (IANA; GLUE's files hold stray quotes), but a field quoted whole is unquoted.
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
            message = f"{path} line {reader.line_num} is not CSV ({first_line(exc)}); close or double its quotes"
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


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    for batch in batches_of(path, columns):
        try:
            yield from batch.to_pylist()
        except UnicodeDecodeError as exc:  # raised before its first row
            raise DataError(f"{path} holds text that is not UTF-8 ({first_line(exc)}); write it as UTF-8") from exc


def batches_of(path: Path, columns: Sequence[str] | None) -> Iterator[Any]:  # pa.RecordBatch
    file = open_parquet(path)
    wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    rows = min(max(_BATCH_BYTES // max(row_bytes, 1), 1), _BATCH)
    try:
        yield from file.iter_batches(batch_size=rows, columns=wanted, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise DamagedFileError(f"{path} is a damaged Parquet file ({first_line(exc)}); copy or write it again") from exc


def values_of(column: Any) -> list[Any]:  # pa.Array
    """Its values; where some are not UTF-8, which Parquet does not check, those bytes as lone surrogates."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        raw = plain.cast(pa.large_binary()).to_pylist()
        return [value if value is None else value.decode("utf-8", "surrogateescape") for value in raw]


def open_parquet(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise _damage(path, exc, "at all") from exc
        reason = first_line(exc)
        raise DamagedFileError(f"{path} is not a readable Parquet file ({reason}); copy or write it again") from exc


# ---- opening ----


def _open_text(path: Path) -> TextIO:
    """UTF-8 text with or without a byte order mark; invalid bytes read as lone surrogates. CSV keeps its line ends."""
    name = path.name.lower()
    raw: Any
    if name.endswith(".gz"):
        raw = gzip.open(path, "rb")  # noqa: SIM115 - closed with the text stream
    elif name.endswith(".zst"):
        raw = io.BufferedReader(_ZstdStream(path.open("rb")))
    else:
        raw = path.open("rb")
    newline = "" if kind_of(path) == ".csv" else None
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


class _ZstdStream(io.RawIOBase):
    """Decompressed bytes; zstandard's own reader takes a file cut short for a whole one, this raises EOFError."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._ready = b""
        self._rest = b""  # compressed bytes after the end of a frame: the next frame
        self._frame: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._fill():
            pass
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _fill(self) -> bool:
        data = self._rest or self._source.read(1 << 14)
        if not data:
            if self._frame is not None:
                raise EOFError("compressed file ended before the end of its frame")
            return False
        self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        self._ready = self._frame.decompress(data)
        self._rest = self._frame.unused_data
        if self._frame.eof:
            self._frame = None
        return True

    def close(self) -> None:
        self._source.close()
        super().close()


def first_line(exc: BaseException) -> str:
    """The first line of an exception's message, or its kind."""
    text = str(exc).strip()
    return text.splitlines()[0][:200] if text else type(exc).__name__
