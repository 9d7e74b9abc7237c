"""From labels as people write them (names, indices, numbers, booleans, numbers in a CSV) to class indices or numbers.

One decision for the whole task: all splits together show whether it is regression, train alone gives the class names,
so that a label that occurs in evaluation only is an error and does not get an output that is never trained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from augkd.data.target import Target
from augkd.errors import DataError, short_repr

Label = int | float | tuple[int, ...]  # a class, a number, or the indices of several labels, ascending
Written = Mapping[str, Sequence[tuple[int, Any]]]  # split → (row number, label as written; None where there is none)
Labels = dict[str, list[Label | None]]  # split → class indices, numbers or indices of several labels

_INTEGER = re.compile(r"[+-]?\d+")
_CODE = re.compile(r"0\d+")  # 0110: a number would lose its zeros
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)


def map_labels(
    values: Written,
    where: Mapping[str, str],  # split → what messages call it
    given: tuple[str, ...],  # class names in index order; (): the labels of train
    regression: bool | None,  # None: regression when a label is not a whole number
) -> tuple[Labels, Target]:
    """Labels by split, and the target they mean, which has no class names where no row has a label.

    A list is any number of labels, and then all rows have lists. Raises DataError, with file and row, for a label that
    does not fit the others.
    """
    if any(isinstance(value, list) for _, value in _all_rows(values)):
        return _map_lists(values, where, given, regression)
    _check_scalars(values, where)
    by_name = bool(given) and all(value is None or str(value) in given for _, value in _all_rows(values))
    if not by_name:
        values = _numbers(values, codes=not given and not regression)
        _check_finite(values, where)
    fractional = any(isinstance(value, float) and not value.is_integer() for _, value in _all_rows(values))
    if regression or (regression is None and fractional and not given):
        return _to_numbers(values, where), Target()
    if by_name:
        index = {name: given.index(name) for name in given}
        labels: Labels = {split: [v if v is None else index[str(v)] for _, v in rows] for split, rows in values.items()}
        return labels, Target(given)
    if given:
        return {split: _to_indices(rows, given, where[split]) for split, rows in values.items()}, Target(given)
    return _to_own_classes(values, where)


def _map_lists(
    values: Written, where: Mapping[str, str], given: tuple[str, ...], regression: bool | None
) -> tuple[Labels, Target]:
    """Indices of several labels: each label of a list is mapped as a single one is."""
    _check_lists(values, where, regression)
    flat = {split: [(n, one) for n, value in rows for one in value or ()] for split, rows in values.items()}
    indices, target = map_labels(flat, where, given, regression=False)
    if len(target.labels) < 2:
        raise DataError(
            f"{where['train']}: the lists of labels name {len(target.labels)} label ({_listed(target.labels)}); a task "
            "of several labels needs at least 2, list all names in `labels`"
        )
    labels: Labels = {}
    for split, rows in values.items():
        left = iter(indices[split])
        labels[split] = [None if value is None else _set_of(next(left) for _ in value) for _, value in rows]
    return labels, Target(target.labels, multi_label=True)


def _set_of(indices: Iterable[Any]) -> tuple[int, ...]:
    return tuple(sorted({int(index) for index in indices}))


def _check_lists(values: Written, where: Mapping[str, str], regression: bool | None) -> None:
    for split, rows in values.items():
        for number, value in rows:
            if value is None:
                continue
            if regression:
                raise DataError(f"{where[split]} row {number}: label {short_repr(value)} is no number; drop regression")
            if not isinstance(value, list):
                raise DataError(
                    f"{where[split]} row {number}: label {short_repr(value)} is not a list, as other rows have; "
                    f"write [{short_repr(value)}]"
                )
            if None in value:
                raise DataError(f"{where[split]} row {number}: label {short_repr(value)} has an empty entry; remove it")


def _all_rows(values: Written) -> list[tuple[int, Any]]:
    return [item for rows in values.values() for item in rows]


def _check_scalars(values: Written, where: Mapping[str, str]) -> None:
    for split, rows in values.items():
        for number, value in rows:
            if value is not None and not isinstance(value, str | int | float):
                raise DataError(
                    f"{where[split]} row {number}: label {short_repr(value)} is a {type(value).__name__}; "
                    "give one name or number, or a list of them"
                )


def _numbers(values: Written, codes: bool) -> Written:
    """The labels, as numbers where all are numbers written as text; not where `codes` allows for ones like 0110."""
    labels = [value for _, value in _all_rows(values) if value is not None]
    if labels and all(isinstance(value, str) and _NUMBER.fullmatch(value.strip()) for value in labels):
        if codes and any(_CODE.fullmatch(value.strip()) for value in labels):
            return {split: [(n, None if v is None else v.strip()) for n, v in rows] for split, rows in values.items()}
        parsed = {v: int(v) if _INTEGER.fullmatch(v.strip()) else float(v) for v in set(labels)}
        values = {split: [(n, None if v is None else parsed[v]) for n, v in rows] for split, rows in values.items()}
    return values


def _check_finite(values: Written, where: Mapping[str, str]) -> None:
    for split, rows in values.items():
        for number, value in rows:
            if isinstance(value, float) and not math.isfinite(value):
                raise DataError(
                    f"{where[split]} row {number}: label is {value}; correct it, or leave it empty in train"
                )


def _to_numbers(values: Written, where: Mapping[str, str]) -> Labels:
    for split, rows in values.items():
        for number, value in rows:
            if isinstance(value, str):
                raise DataError(
                    f"{where[split]} row {number}: label {short_repr(value)} is not a number; regression needs numbers"
                )
    return {split: [None if v is None else float(v) for _, v in rows] for split, rows in values.items()}


def _to_indices(rows: Sequence[tuple[int, Any]], given: tuple[str, ...], where: str) -> list[Label | None]:
    """Class indices of one split; a whole number counts the names from 0, anything else must be a name."""
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
                f"{where} row {number}: label {short_repr(value)} is neither one of the {len(given)} names "
                f"({_listed(given)}) nor an index 0..{len(given) - 1}; "
                "correct it or the names (`labels`, labels.json)"
            )
    return indices


def _to_own_classes(values: Written, where: Mapping[str, str]) -> tuple[Labels, Target]:
    """Class indices, with the labels of train as class names: whole numbers in their order, names in the alphabet's."""
    fractional = [v for _, v in _all_rows(values) if isinstance(v, float) and not v.is_integer()]
    if fractional:
        raise DataError(f"{where['train']}: label {fractional[0]} is not a class; use regression: true for such labels")
    named = {split: [(n, None if v is None else _name(v)) for n, v in rows] for split, rows in values.items()}
    in_train = {name for _, name in named["train"] if name is not None}
    # where train has soft targets only, evaluation gives the names
    known = in_train or {name for _, name in _all_rows(named) if name is not None}
    numbers = all(_INTEGER.fullmatch(name) for name in known)
    names = tuple(sorted(known, key=lambda name: (int(name) if numbers else 0, name)))
    for split, rows in named.items():
        for number, name in rows:
            if name is not None and name not in known:
                raise DataError(
                    f"{where[split]} row {number}: label {name!r} never occurs in train ({_listed(names)}); "
                    "correct it, or list all names in `labels`"
                )
    index = {name: position for position, name in enumerate(names)}
    return {split: [None if v is None else index[v] for _, v in rows] for split, rows in named.items()}, Target(names)


def _listed(names: tuple[str, ...]) -> str:
    """The first eight names."""
    return ", ".join(names[:8]) + (", …" if names[8:] else "")


def _name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)
