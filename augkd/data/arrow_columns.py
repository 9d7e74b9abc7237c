"""Columns of a Parquet file that a stranger may have written, as the types that augkd computes with.

A null where a value must be, or a text where a number must be, is an error that names the file, the column and the row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from augkd.errors import DataError, first_line


def text_column(column: Any, where: str, *, nullable: bool = False) -> Any:
    """A column of texts as a string array; raises DataError for anything else in it."""
    texts = _cast(_array(column), pa.string(), where, "a text")
    if not nullable:
        _no_null(texts, where)
    return texts


def number_rows(column: Any, where: str, width: int | None = None) -> NDArray[np.float32]:  # (rows, width)
    """A column of lists of numbers as a matrix; raises DataError for a null, for other values and other lengths.

    `width` None takes the length of the first row; without a row, the matrix has no column.
    """
    lists = _array(column)
    if pa.types.is_fixed_size_list(lists.type):
        lists = _cast(lists, pa.list_(lists.type.value_type), where, "a list of numbers")
    if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
        raise DataError(f"{where} holds {lists.type}; each row must be a list of numbers")
    _no_null(lists, where)
    lengths = np.asarray(pc.list_value_length(lists), dtype=np.int64)
    width = int(lengths[0]) if width is None and len(lengths) else width or 0
    if (lengths != width).any():
        row = int((lengths != width).argmax())
        raise DataError(f"{where} row {row} has {lengths[row]} values, not {width}; give each row as many")
    values = numbers(lists.flatten(), where)
    return values.reshape(len(lists), width)


def numbers(column: Any, where: str) -> NDArray[np.float32]:  # (rows,)
    """A column of numbers as an array that can be written to; raises DataError for nulls and what is not finite."""
    array = _array(column)
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)) and len(array):
        raise DataError(f"{where} holds {array.type}; give numbers")
    _no_null(array, where)
    with np.errstate(over="ignore"):  # what is too large becomes inf, and is refused
        values = np.array(array, dtype=np.float32)
    if not np.isfinite(values).all():
        place = int(np.isfinite(values).argmin())
        raise DataError(f"{where} value {place} is {values[place]}, which is not finite as a float32")
    return values


def _array(column: Any) -> Any:
    combined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(combined, pa.ChunkedArray):  # of a type that is larger than one array
        combined = pa.concat_arrays(combined.chunks)
    return combined.dictionary_decode() if pa.types.is_dictionary(combined.type) else combined


def _cast(array: Any, kind: Any, where: str, what: str) -> Any:
    if array.type == kind:
        return array
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_nested(array.type):
        allowed = pa.types.is_nested(kind) and pa.types.is_nested(array.type)
    else:
        allowed = True
    try:
        if allowed:
            return array.cast(kind)
        reason = str(array.type)
    except pa.ArrowException as exc:
        reason = first_line(exc)
    raise DataError(f"{where} cannot be read as {what} ({reason}); write it again")


def _no_null(array: Any, where: str) -> None:
    if array.null_count:
        row = int(np.asarray(array.is_null()).argmax())
        raise DataError(f"{where} row {row} is empty (null); give it a value, or leave the row out")
