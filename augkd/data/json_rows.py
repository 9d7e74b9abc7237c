"""Rows of JSON: one object per line, an array of objects, columns as pandas writes them, and Label Studio's exports.

An array is read item by item, so that it may be larger than memory; of lines, one is held at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from augkd.errors import DamagedFileError, first_line, short_repr

Row = dict[str, Any]

_CHUNK = 1 << 16  # characters
_BETWEEN = " \t\r\n,"  # of an array's items
_ADVICE = 'write rows as {"text": …}, one per line or in one array'


class BadRow(str):
    """The message about one row that cannot be read; the rows after it can."""


def json_rows(path: Path, stream: TextIO, whole: bool) -> Iterator[Row | BadRow]:
    """The rows in order; with `whole`, the file may be a single object that holds them all (.json).

    Raises DamagedFileError where the rest of the file cannot be read.
    """
    number = 1  # of the line
    while (first := stream.read(1)).isspace():
        number += first == "\n"
    rows = _array(path, stream) if first == "[" else _lines(path, first, stream, number, whole)
    for place, row in enumerate(rows, 1):
        yield row if isinstance(row, BadRow) else _flat(row, path, place)


def _lines(path: Path, first: str, stream: TextIO, number: int, whole: bool) -> Iterator[Row | BadRow]:
    line = first + stream.readline()
    if whole and line.strip() == "{":
        yield from _rows_of_object(_loaded(path, line + stream.read()))
        return
    next_line = stream.readline()
    if whole and not next_line and isinstance(only := _row_of_line(path, line, number), dict):
        yield from _rows_of_object(only)
        return
    while line:
        if line.strip():
            yield _row_of_line(path, line, number)
        line, next_line, number = next_line, stream.readline(), number + 1


def _row_of_line(path: Path, line: str, number: int) -> Row | BadRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        content = short_repr(line[:200].strip())
        return BadRow(
            f"{path} line {number} is not valid JSON ({first_line(exc)}): {content}; write one object per line"
        )
    return row if isinstance(row, dict) else _no_object(f"{path} line {number}", row)


def _no_object(where: str, value: Any) -> BadRow:
    return BadRow(f"{where} is a {type(value).__name__}, not an object: {short_repr(value)}; {_ADVICE}")


def _array(path: Path, stream: TextIO) -> Iterator[Row | BadRow]:
    """The items of an array whose `[` has been read."""
    decoder, text, number = json.JSONDecoder(), "", 0
    while True:
        text = text.lstrip(_BETWEEN)
        if text.startswith("]"):
            if rest := (text[1:] + stream.read(_CHUNK)).strip():
                raise DamagedFileError(f"{path} goes on after its array: {short_repr(rest[:60])}; write one array")
            return
        try:
            item, end = decoder.raw_decode(text)
            complete = end < len(text)  # a number could go on
        except (ValueError, RecursionError) as exc:
            complete, problem = False, first_line(exc)
        if complete:
            number += 1
            text = text[end:]
            yield item if isinstance(item, dict) else _no_object(f"{path} item {number}", item)
        elif more := stream.read(max(_CHUNK, len(text))):  # as much again: an item is decoded a few times at most
            text += more
        else:
            reason = problem if text.strip() else "its ] is missing"
            raise DamagedFileError(f"{path} is not valid JSON after item {number} ({reason}); copy or write it again")


# ---- one object that holds all rows ----


def _loaded(path: Path, text: str) -> Row:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DamagedFileError(f"{path} is not valid JSON ({first_line(exc)}); {_ADVICE}") from exc
    assert isinstance(value, dict), "it begins with {"
    return value


def _rows_of_object(table: Row) -> list[Row]:
    """The rows under `data` or the only list of objects; columns turned to rows (pandas, `datasets`); else one row."""
    lists = {name: value for name, value in table.items() if _is_list_of(dict, value)}
    if "data" in lists or len(lists) == 1:
        return list(lists.get("data") or next(iter(lists.values())))
    columns = [value.values() if isinstance(value, dict) else value for value in table.values()]
    alike = all(isinstance(value, dict) for value in table.values()) or all(map(_is_list, table.values()))
    if table and alike and len({_keys(value) for value in table.values()}) == 1:
        return [dict(zip(table, values, strict=True)) for values in zip(*columns, strict=True)]
    return [table]


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _keys(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, dict) else (len(value),)


# ---- Label Studio ----


def _flat(row: Row, path: Path, number: int) -> Row | BadRow:
    """A task of Label Studio's JSON export as one row: its data, and a column for each control tag."""
    if not (isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)):
        return row
    labels: Row = {}
    for annotation in row["annotations"]:
        results = [] if annotation.get("was_cancelled") else annotation.get("result") or []
        for name, value in map(_labelled, results):
            if labels.setdefault(name, value) != value:
                return BadRow(
                    f"{path} item {number}: annotations of {name!r} disagree ({short_repr(labels[name])}, "
                    f"{short_repr(value)}); settle them in Label Studio, or remove the text"
                )
    return {"id": row.get("id"), **row["data"], **labels}


def _labelled(result: Mapping[str, Any]) -> tuple[str, Any]:
    """The control tag's name and its value: a choice, a list of several, a rating or a number."""
    value = result.get("value") or {}
    chosen: Any = next((value[kind] for kind in ("choices", "rating", "number", "text") if kind in value), None)
    return str(result.get("from_name")), chosen[0] if isinstance(chosen, list) and len(chosen) == 1 else chosen
