"""Guesses which columns of a user's table hold the texts and the labels, and says why.

Names are tried first, values second. The reason is part of the result because the user knows better: every guess can be
overridden with an option.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from augkd.data.sources import RawTask
from augkd.errors import DataError
from augkd.setup.several_labels import list_column, separator_of, yes_no_columns

SAMPLE_ROWS = 1000  # rows that a guess looks at
_TEXT_NAMES = (
    *("text", "sentence", "review", "question", "utterance", "content", "body", "message", "comment", "document"),
)
_PAIR_NAMES = (
    *(("text", "text_pair"), ("text_a", "text_b"), ("sentence1", "sentence2"), ("premise", "hypothesis")),
    *(("question1", "question2"), ("question", "sentence"), ("question", "answer"), ("query", "passage")),
)
_LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "topic", "intent", "sentiment", "score", "rating", "y"),
    *("choice", "choices"),  # Label Studio
)
_NO_LABELS = {  # few values, and still no labels
    *("split", "fold", "set", "source", "lang", "language"),
    *("annotator", "annotation_id", "created_at", "updated_at", "lead_time"),  # Label Studio
}
_NO_NAME = re.compile(r"\s*|unnamed: \d+|__index_level_\d+__|index|id|guid", re.IGNORECASE)  # as pandas names an index
_NAME = "recognised by its name"

Values = dict[str, list[Any]]  # column → its values


@dataclass(frozen=True)
class Columns:
    """The columns of a task."""

    text: str
    text_pair: str | None
    label: str | tuple[str, ...]  # several: a column of 0 and 1 for each label
    reasons: tuple[str, ...]  # why these, one line each
    separator: str | None = None  # between the labels of a cell


def guess_columns(
    raw: RawTask,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    separator: str | None = None,
) -> Columns:
    """The columns of a task; given ones are taken as given. Raises DataError where none looks like text or label.

    `label` may name several columns, with commas between them.
    """
    rows = raw.rows["train"][:SAMPLE_ROWS]
    values = {name: [row.get(name) for row in rows] for name in raw.columns}
    labels, why_label = _given(label, values) if label else _guess_labels(raw, values, {text, text_pair})
    text, why_text = (text, "given with --text") if text else _guess_text(raw, values, {*labels, text_pair})
    columns = f"column {labels[0]!r}" if len(labels) == 1 else f"columns {', '.join(labels)}"
    reasons = [f"text column {text!r}: {why_text}", f"label {columns}: {why_label}"]
    if separator:
        reasons.append(f"separator {separator!r}: given with --separator")
    elif len(labels) == 1 and (separator := separator_of(values.get(labels[0], ()))):
        reasons.append(f"separator {separator!r}: the names it separates are labels of other rows, too")
    if text_pair:
        reasons.insert(1, f"text_pair column {text_pair!r}: given with --text-pair")
    else:
        seconds = (second for first, second in _PAIR_NAMES if first == text)
        text_pair = next((name for name in seconds if name in values and name not in labels), None)
        if text_pair:
            reasons.insert(1, f"text_pair column {text_pair!r}: its name goes with {text!r}")
    return Columns(text, text_pair, labels[0] if len(labels) == 1 else labels, tuple(reasons), separator)


def _given(label: str, values: Values) -> tuple[tuple[str, ...], str]:
    several = tuple(name.strip() for name in label.split(","))
    return (label,) if label in values or len(several) == 1 else several, "given with --label"


def _guess_labels(raw: RawTask, values: Values, taken: set[str | None]) -> tuple[tuple[str, ...], str]:
    """One column, or a column of 0 and 1 for each label; and why."""
    named = any(name.lower() in _LABEL_NAMES for name in values if name not in taken)
    if not named and (lists := list_column(values, taken)):
        return (lists,), "its values are lists"
    if not named and (columns := yes_no_columns(values, taken)):
        return columns, "they hold 0 and 1, one for each label"
    name, why = _guess_label(raw, values, taken)
    return (name,), why


def _guess_label(raw: RawTask, values: Values, taken: set[str | None]) -> tuple[str, str]:
    names = {name.lower(): name for name in values if name not in taken}
    if known := next((name for name in _LABEL_NAMES if name in names), None):
        return names[known], _NAME
    rows = min(SAMPLE_ROWS, len(raw.rows["train"]))
    distinct = {
        name: _count_classes(column)
        for name, column in values.items()
        if name not in taken and name.lower() not in _NO_LABELS and not _NO_NAME.fullmatch(name)
    }
    fitting = {name: count for name, count in distinct.items() if 2 <= count <= max(20, rows // 10)}
    if not fitting:
        raise DataError(_nothing_fits(raw, "a label", "--label"))
    name = min(fitting, key=lambda name: (fitting[name], name))
    return name, f"fewest distinct values, {fitting[name]} in the first {rows} rows"


def _guess_text(raw: RawTask, values: Values, taken: set[str | None]) -> tuple[str, str]:
    left = {
        name: column
        for name, column in values.items()
        if name not in taken and not _NO_NAME.fullmatch(name) and any(isinstance(value, str) for value in column)
    }
    if not left:
        raise DataError(_nothing_fits(raw, "a text", "--text"))
    names = {name.lower(): name for name in left}
    pairs = [first for first, second in _PAIR_NAMES if first in names and second in names]
    if known := next((name for name in (*_TEXT_NAMES, *pairs) if name in names), None):
        return names[known], _NAME
    words = {
        name: sum(len(str(value or "").split()) for value in column) / max(1, len(column))
        for name, column in left.items()
    }
    name = max(words, key=lambda name: (words[name], name))
    return name, f"longest texts, {words[name]:.0f} words on average"


def _nothing_fits(raw: RawTask, what: str, option: str) -> str:
    columns = ", ".join(raw.columns)
    return f"{raw.where['train']}: no column looks like {what} (columns: {columns}); name it with {option}"


def _count_classes(column: Sequence[Any]) -> int:
    """How many distinct values a column has; 0 where they are no labels: lists, long texts, or no two are equal."""
    there = [value for value in column if value not in (None, "")]
    if any(isinstance(value, list | dict) or len(str(value)) > 60 for value in there):
        return 0
    distinct = len({str(value) for value in there})
    return distinct if distinct < len(there) else 0
