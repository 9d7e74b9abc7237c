"""Rows from wherever people keep text: .txt, .csv, .tsv, .jsonl, .parquet, compressed text, and the Hugging Face Hub.

Every reader is a generator that holds one row (Parquet: one batch) at a time, so a file may be larger than memory.
What is damaged says so with its file and line; a row is never skipped in silence.
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
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from augkd.errors import DataError, shown

Row = dict[str, Any]

_KINDS = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")
_SUPPORTED = ".txt, .csv, .tsv, .jsonl (also .gz, .zst) and .parquet"
_SIDECARS = {"labels.json", "manifest.json", "building.json", "dataset_infos.json", "dataset_info.json", "state.json"}
_FIELD_LIMIT = 1 << 24  # characters of one CSV field: an unclosed quote must not read the whole file into memory
_BATCH = 1024  # rows of a Parquet batch
_BROKEN = (EOFError, OSError, zlib.error, zstandard.ZstdError)
_SURROGATE = re.compile("[\ud800-\udfff]")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


# ---- finding ----


def local_path(dataset: str) -> Path | None:
    """The file or folder `dataset` names; None when it can only be a Hub name."""
    path = Path(dataset).expanduser()
    if path.exists():
        return path
    if dataset.startswith((".", "/", "~")) or kind_of(path):
        raise DataError(f"dataset {dataset!r} does not exist (looked in {Path.cwd()}); correct the path")
    return None


def kind_of(path: Path) -> str | None:
    """The format by name (`.csv` of `a.csv.gz`); None when it is not one we read."""
    name = path.name.lower()
    packed = name.endswith((".gz", ".zst"))
    suffix = Path(name.rsplit(".", 1)[0] if packed else name).suffix
    return suffix if suffix in _KINDS and not (packed and suffix == ".parquet") else None


def data_files(path: Path) -> list[Path]:
    """A file itself; of a folder, its supported files in name order, with those of its folders that are not hidden."""
    if not path.exists():
        raise DataError(f"{path} does not exist; correct the path")
    if not path.is_dir():
        if kind_of(path) is None:
            raise DataError(f"{path} is of no kind augkd reads; give {_SUPPORTED}")
        return [path]
    found = [file for file in path.rglob("*") if _is_data(file, path)]
    if not found:
        raise DataError(f"folder {path} has no data file; put {_SUPPORTED} there")
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def _is_data(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.name not in _SIDECARS and kind_of(file) is not None and file.is_file()


# ---- reading ----


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of one file in order, with only `columns` when given (a column the file lacks is left out)."""
    kind = kind_of(path)
    if kind is None:
        raise DataError(f"{path} is of no kind augkd reads; give {_SUPPORTED}")
    count = 0
    try:
        for row in _parquet(path, columns) if kind == ".parquet" else _text_rows(path, kind):
            yield row if columns is None else {name: row[name] for name in columns if name in row}
            count += 1
    except _BROKEN as exc:
        raise _damage(path, exc, f"after row {count}") from exc


def column_names(path: Path) -> list[str]:
    """The columns of one file; of JSON lines, the keys of the first 100 rows."""
    kind = kind_of(path)
    if kind == ".parquet":
        return [str(name) for name in _open_parquet(path).schema_arrow.names]
    if kind in (".csv", ".tsv"):
        try:
            with _open_text(path) as stream:
                return _header(_fields(path, stream, kind), path)
        except _BROKEN as exc:
            raise _damage(path, exc, "in line 1") from exc
    rows = itertools.islice(read_rows(path), 100)
    return ["text"] if kind == ".txt" else list(dict.fromkeys(name for row in rows for name in row))


def parquet_count(path: Path) -> int:
    """Rows of a Parquet file, from its footer alone."""
    return int(_open_parquet(path).metadata.num_rows)


def _damage(path: Path, exc: Exception, where: str) -> DataError:
    if isinstance(exc, OSError) and not isinstance(exc, gzip.BadGzipFile):
        return DataError(f"{path} cannot be read {where} ({_line(exc)}); check the path and its permissions")
    return DataError(f"{path} is damaged {where} ({_line(exc)}); copy or write it again")


def _text_rows(path: Path, kind: str) -> Iterator[Row]:
    with _open_text(path) as stream:
        if kind == ".txt":
            for line in stream:
                yield {"text": line.rstrip("\r\n")}
        elif kind in (".csv", ".tsv"):
            yield from _separated(path, stream, kind)
        else:
            yield from _json_lines(path, stream)


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise DataError(
                f"{path} line {number} is not JSON ({_line(exc)}): {shown(line.strip())}; write one object per line"
            ) from exc
        if not isinstance(row, dict):
            raise DataError(
                f"{path} line {number} is a {type(row).__name__}, not an object: {shown(row)}; "
                'write rows as {"text": …}, one per line'
            )
        # a lone surrogate ("\ud800") is legal JSON, but no tokenizer and no Parquet writer takes it
        yield {name: _SURROGATE.sub("\ufffd", v) if isinstance(v, str) else v for name, v in row.items()}


def _separated(path: Path, stream: TextIO, kind: str) -> Iterator[Row]:
    rows = _fields(path, stream, kind)
    header = _header(rows, path)
    advice = "quote fields that hold commas" if kind == ".csv" else "save texts that hold tabs or line breaks as .csv"
    for line, fields in rows:
        if len(fields) != len(header):
            raise DataError(
                f"{path} line {line} has {len(fields)} fields, its header has {len(header)}: {shown(fields)}; {advice}"
            )
        yield dict(zip(header, fields, strict=True))


def _fields(path: Path, stream: TextIO, kind: str) -> Iterator[tuple[int, list[str]]]:
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
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as exc:
        raise DataError(f"{path} line {reader.line_num} is not CSV ({_line(exc)}); close or double its quotes") from exc


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if _QUOTED.fullmatch(field) else field


def _header(rows: Iterator[tuple[int, list[str]]], path: Path) -> list[str]:
    _, header = next(rows, (0, []))
    if not header:
        raise DataError(f"{path} is empty; its first line must name the columns, for example: text,label")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path} names the column {repeated[0]!r} twice in its first line; rename one")
    return header


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    file = _open_parquet(path)
    wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
    try:
        for batch in file.iter_batches(batch_size=_BATCH, columns=wanted, use_threads=False):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise DataError(f"{path} is a damaged Parquet file ({_line(exc)}); copy or write it again") from exc


def _open_parquet(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise DataError(f"{path} is not a readable Parquet file ({_line(exc)}); copy or write it again") from exc


# ---- opening ----


def _open_text(path: Path) -> TextIO:
    """UTF-8 text with or without a byte order mark; invalid bytes read as U+FFFD. CSV keeps its line ends."""
    name = path.name.lower()
    raw: Any
    if name.endswith(".gz"):
        raw = gzip.open(path, "rb")  # noqa: SIM115 - closed with the text stream
    elif name.endswith(".zst"):
        raw = io.BufferedReader(_ZstdStream(path.open("rb")))
    else:
        raw = path.open("rb")
    newline = "" if kind_of(path) == ".csv" else None
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline=newline)


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


# ---- the Hub ----


def from_hub(dataset: str, config: str | None, **options: Any) -> Any:
    """`datasets.load_dataset`, with whatever goes wrong there told in one line."""
    import datasets

    try:
        return datasets.load_dataset(dataset, config, **options)
    except Exception as exc:  # the Hub's clients raise their own, httpx's and built-in errors
        raise DataError(
            f"dataset {dataset!r} is no file or folder here and cannot be loaded from the Hub ({_line(exc)}); "
            "correct the name or the config, or give a path"
        ) from exc


def _line(exc: BaseException) -> str:
    """The first line of an exception's message, or its kind."""
    text = str(exc).strip()
    return text.splitlines()[0][:200] if text else type(exc).__name__
