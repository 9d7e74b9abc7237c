"""Which columns of a task's raw rows hold its texts, pairs and labels, and the rows read through them.

Columns that `labels.json` or the format of Minimax-kNN and Glitter name need no option. Rows without a text are dropped
and noted; a pair column that only some rows fill is an error, since half a pair would only lower the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from augkd.data.formats import Row, is_missing
from augkd.data.label_columns import LabelColumns
from augkd.data.sources import RawTask
from augkd.errors import DataError, did_you_mean, short_repr


@dataclass(frozen=True)
class Columns:
    """The columns of a task; `pair_required` where the user named the pair column."""

    text: str
    text_pair: str | None
    label: LabelColumns
    pair_required: bool


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row that has a text; `label` as it is written, None where there is none."""

    number: int  # from 1, in its split
    id: str
    text: str
    text_pair: str | None
    label: Any


def find_columns(
    raw: RawTask,
    text: str,
    text_pair: str | None,
    label: str | Sequence[str],
    notes: list[str],
    separator: str | None = None,
    empty_is_none: bool = False,
) -> Columns:
    """The columns of a task, from the options and what the data says; raises DataError for one that is not there.

    `separator` and `empty_is_none` are those of `LabelColumns`.
    """
    listed = list(raw.facts.text_columns)
    if not listed and "text" not in raw.columns and "text_a" in raw.columns:
        listed = [name for name in ("text_a", "text_b") if name in raw.columns]  # Minimax-kNN and Glitter
    pair = text_pair
    if text == "text" and listed:
        text = listed[0]
        pair = pair or (listed[1] if len(listed) > 1 else None)
    if pair is None and "text_pair" in raw.columns:
        pair = "text_pair"
    for option, column in (("text", text), ("text_pair", pair)):
        if column is not None and column not in raw.columns:
            raise _no_column(raw, option, column)
    names = _label_columns(raw, (label,) if isinstance(label, str) else tuple(label), notes)
    labels = LabelColumns(names, not isinstance(label, str), separator, empty_is_none, raw.null)
    return Columns(text, pair, labels, pair_required=text_pair is not None)


def _label_columns(raw: RawTask, names: tuple[str, ...], notes: list[str]) -> tuple[str, ...]:
    missing = next((name for name in names if name not in raw.columns), None)
    if missing is None:
        return names
    if names != ("label",):
        raise _no_column(raw, "label", missing)
    notes.append("no label column: the task has no labels, only the teacher's outputs")
    return ()


def _no_column(raw: RawTask, option: str, column: str) -> DataError:
    suggestion = did_you_mean(column, raw.columns)
    advice = suggestion if suggestion.endswith("?") else f"; name one with `{option}`"
    return DataError(f"{raw.where['train']} has no column {column!r} (it has: {', '.join(raw.columns)}){advice}")


def text_rows(raw: RawTask, split: str, columns: Columns, notes: list[str]) -> list[TextRow]:
    """The rows of a split that have a text, in order; raises DataError when none has."""
    rows = raw.rows[split]
    kept = []
    for number, (key, row) in enumerate(zip(row_ids(rows, split), rows, strict=True), 1):
        where = f"{raw.where[split]} row {number}"
        text = _text(row, columns.text, where)
        if not text.strip():
            continue
        pair = _text(row, columns.text_pair, where) if columns.text_pair else ""
        kept.append(TextRow(number, key, text, pair if pair.strip() else None, columns.label.read(row, where)))
    if not kept:
        raise DataError(
            f"{raw.where[split]}: no row of {split} has a text in column {columns.text!r} ({len(rows)} rows); fill it"
        )
    if len(kept) < len(rows):
        notes.append(f"{split}: {len(rows) - len(kept)} of {len(rows)} rows dropped, their text is empty")
    return kept


def row_ids(rows: Sequence[Row], split: str) -> list[str]:
    """Column `id`, else `guid`, where every row has its own value; else `train-0`, `train-1`, …"""
    for column in ("id", "guid"):
        keys = [str(row[column]) for row in rows if row.get(column) not in (None, "")]
        if len(set(keys)) == len(rows):
            return keys
    return [f"{split}-{number}" for number in range(len(rows))]


def _text(row: Row, column: str, where: str) -> str:
    value = row.get(column)
    if isinstance(value, list | dict | bytes):
        raise DataError(f"{where}: column {column!r} is {short_repr(value)}, not a text; name another column")
    return "" if is_missing(value) else str(value)


def check_pairs(rows: Mapping[str, Sequence[TextRow]], columns: Columns, where: Mapping[str, str]) -> None:
    """Raises DataError when the pair column is filled in some rows only; all empty is no pair task."""
    filled = any(row.text_pair is not None for split in rows.values() for row in split)
    if columns.text_pair is None or not (filled or columns.pair_required):
        return
    for split, split_rows in rows.items():
        lone = [row.id for row in split_rows if row.text_pair is None]
        if lone:
            raise DataError(
                f"{where[split]}: pair column {columns.text_pair!r} is empty in {len(lone)} of {len(split_rows)} rows "
                f"(first: {lone[0]}); fill or remove these rows"
            )
