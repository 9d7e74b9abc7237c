"""Parquet files, read one batch at a time; a batch is small where rows are large, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from augkd.errors import DamagedFileError, DataError, first_line

_BATCH = 1024  # rows of a batch, fewer where so many have more bytes than this:
_BATCH_BYTES = 1 << 24
_ROW_BYTES = 1 << 26  # a text of as many characters as a line may have, in UTF-8


def parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """The rows in order, with only `columns` when given; raises DataError where a text is not UTF-8."""
    for batch in parquet_batches(path, columns):
        try:
            yield from batch.to_pylist()
        except UnicodeDecodeError as exc:  # raised before its first row
            raise DataError(f"{path} holds text that is not UTF-8 ({first_line(exc)}); write it as UTF-8") from exc


def parquet_column(path: Path, column: str) -> Iterator[Any]:
    """The values of one column, or field of a struct (`column.field`), in order.

    Bytes that are not UTF-8, which Parquet does not check, come as lone surrogates.
    """
    name, _, field = column.partition(".") if column not in _open(path).schema_arrow.names else (column, "", "")
    for batch in parquet_batches(path, [name]):
        values = _values(batch.column(0))
        yield from (None if value is None else value.get(field) for value in values) if field else values


def _values(column: Any) -> list[Any]:  # pa.Array
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        raw = plain.cast(pa.large_binary()).to_pylist()
        return [value if value is None else value.decode("utf-8", "surrogateescape") for value in raw]


def parquet_batches(path: Path, columns: Sequence[str] | None) -> Iterator[Any]:  # pa.RecordBatch
    """The file as record batches; a column it lacks is left out. Raises DamagedFileError."""
    file = _open(path)
    there = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    if row_bytes > _ROW_BYTES:
        raise DamagedFileError(f"{path} has rows of {row_bytes:,} bytes on average; at most {_ROW_BYTES:,} are read")
    rows = min(max(_BATCH_BYTES // max(row_bytes, 1), 1), _BATCH)
    try:
        yield from file.iter_batches(batch_size=rows, columns=there, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise DamagedFileError(f"{path} is a damaged Parquet file ({first_line(exc)}); copy or write it again") from exc


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns and, as `column.field`, of the fields of structs; raises DamagedFileError."""
    schema = _open(path).schema_arrow
    fields = [
        f"{column.name}.{field.name}" for column in schema if pa.types.is_struct(column.type) for field in column.type
    ]
    return [*map(str, schema.names), *fields]


def parquet_count(file: Path | BinaryIO) -> int | None:
    """The number of rows, from the footer alone; None when that is damaged."""
    try:
        return int(_open(file).metadata.num_rows)
    except DamagedFileError:
        return None


def _open(path: Path | BinaryIO) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as exc:
        reason = first_line(exc)
        if isinstance(exc, OSError) and exc.errno is not None:  # the system's; Arrow raises OSError without a number
            raise DataError(f"{path} cannot be read ({reason}); check the path and its permissions") from exc
        raise DamagedFileError(f"{path} is not a readable Parquet file ({reason}); copy or write it again") from exc
