"""From the labels people write (names, indices, numbers, booleans, numbers in a CSV) to class indices or a number.

One decision for the whole task: the kind is read off all splits together, the class names off train alone, so that a
label which only evaluation shows is refused and not given an output nobody trained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from augkd.errors import DataError, shown

Label = int | float
Values = Mapping[str, Sequence[tuple[int, Any]]]  # split -> (row number, label as read; None where there is none)

_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)


def map_labels(
    values: Values,
    where: Mapping[str, str],  # how a split is called in messages
    given: tuple[str, ...],  # class names in index order; (): read them off the labels
    regression: bool | None,  # None: regression when a label is not a whole number
) -> tuple[dict[str, list[Label | None]], tuple[str, ...]]:
    """Labels by split, and the class names; () for regression and for a task without any label."""
    _check_scalars(values, where)
    by_name = bool(given) and all(value is None or str(value) in given for _, value in _all(values))
    if not by_name:
        values = _numbers(values)
        _check_finite(values, where)
    fractional = any(isinstance(value, float) and not value.is_integer() for _, value in _all(values))
    if regression or (regression is None and fractional and not given):
        return _to_numbers(values, where), ()
    if by_name:
        return {
            split: [v if v is None else given.index(str(v)) for _, v in rows] for split, rows in values.items()
        }, given
    if given:
        return {split: _to_indices(rows, given, where[split]) for split, rows in values.items()}, given
    return _to_own_names(values, where)


def _all(values: Values) -> list[tuple[int, Any]]:
    return [item for rows in values.values() for item in rows]


def _check_scalars(values: Values, where: Mapping[str, str]) -> None:
    for split, rows in values.items():
        for number, value in rows:
            if value is not None and not isinstance(value, str | int | float):
                raise DataError(
                    f"{where[split]} row {number}: label {shown(value)} is a {type(value).__name__}; "
                    "give one name or number for each row (several labels a row are not supported)"
                )


def _numbers(values: Values) -> Values:
    """Numbers written as text (all a CSV has) become numbers, if all are; whole floats become ints if all are."""
    found = [value for _, value in _all(values) if value is not None]
    if found and all(isinstance(value, str) and _NUMBER.fullmatch(value.strip()) for value in found):
        parsed = {v: int(v) if _INTEGER.fullmatch(v.strip()) else float(v) for v in set(found)}
        values = {split: [(n, None if v is None else parsed[v]) for n, v in rows] for split, rows in values.items()}
    return values


def _check_finite(values: Values, where: Mapping[str, str]) -> None:
    for split, rows in values.items():
        for number, value in rows:
            if isinstance(value, float) and not math.isfinite(value):
                raise DataError(
                    f"{where[split]} row {number}: label is {value}; correct it, or leave it empty in train"
                )


def _to_numbers(values: Values, where: Mapping[str, str]) -> dict[str, list[Label | None]]:
    for split, rows in values.items():
        for number, value in rows:
            if isinstance(value, str):
                raise DataError(
                    f"{where[split]} row {number}: label {shown(value)} is not a number; regression needs numbers"
                )
    return {split: [None if v is None else float(v) for _, v in rows] for split, rows in values.items()}


def _to_indices(rows: Sequence[tuple[int, Any]], given: tuple[str, ...], where: str) -> list[Label | None]:
    """Whole numbers count the names from 0; anything else must be a name."""
    indices: list[Label | None] = []
    for number, value in rows:
        whole = isinstance(value, int | float) and float(value).is_integer()
        if value is None:
            indices.append(None)
        elif str(value) in given:
            indices.append(given.index(str(value)))
        elif whole and 0 <= int(value) < len(given):
            indices.append(int(value))
        else:
            raise DataError(
                f"{where} row {number}: label {shown(value)} is none of the {len(given)} names "
                f"({', '.join(given[:8])}{', …' if given[8:] else ''}) nor an index 0..{len(given) - 1}; "
                "correct it or the names (`labels`, labels.json)"
            )
    return indices


def _to_own_names(values: Values, where: Mapping[str, str]) -> tuple[dict[str, list[Label | None]], tuple[str, ...]]:
    fractional = [v for _, v in _all(values) if isinstance(v, float) and not v.is_integer()]
    if fractional:
        raise DataError(f"{where['train']}: label {fractional[0]} is not a class; use regression: true for such labels")
    named = {split: [(n, None if v is None else _name(v)) for n, v in rows] for split, rows in values.items()}
    shows = [name for _, name in named["train"] if name is not None]
    # a train split for soft targets only: evaluation alone tells the names
    seen = set(shows) or {name for _, name in _all(named) if name is not None}
    names = tuple(sorted(seen, key=int) if all(_INTEGER.fullmatch(name) for name in seen) else sorted(seen))
    for split, rows in named.items():
        for number, name in rows:
            if name is not None and name not in seen:
                raise DataError(
                    f"{where[split]} row {number}: label {name!r} never occurs in train "
                    f"({', '.join(names[:8])}{', …' if names[8:] else ''}); correct it, or list all names in `labels`"
                )
    index = {name: position for position, name in enumerate(names)}
    return {split: [None if v is None else index[v] for _, v in rows] for split, rows in named.items()}, names


def _name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)
