"""The columns of a transfer set as they must be: a set may come from the Hub, and nothing in it is taken on trust."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augkd.data.arrow_columns import number_rows, numbers, text_column
from augkd.data.target import Target
from augkd.errors import DataError, first_line, short_repr

LABELS = b"augkd.labels"  # in the schema's metadata: the names of classes or labels, as a JSON list
MULTI_LABEL = b"augkd.multi_label"  # where a text has several labels


def target_of(table: pa.Table, names: Collection[str], where: str) -> Target:
    """What a transfer set with the columns `names` predicts, from its metadata.

    Raises DataError for a table without these columns, and where the metadata is no list of names.
    """
    if missing := [name for name in names if name not in table.schema.names]:
        raise DataError(
            f"{where} is not a transfer set of augkd (lacks {', '.join(missing)}); build one with `augkd augment`"
        )
    stored = (table.schema.metadata or {}).get(LABELS)
    if stored is None:
        raise DataError(f"{where} is not a transfer set of augkd (has no label names); build one with `augkd augment`")
    try:
        labels = json.loads(stored)
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{where}: its label names are not valid JSON ({first_line(exc)}); build it again") from exc
    if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
        raise DataError(f"{where}: its label names are {short_repr(labels)}, not a list of names; build it again")
    if len(set(labels)) < len(labels) or len(labels) == 1:
        raise DataError(f"{where}: its label names {short_repr(labels)} must be two or more different ones, or none")
    return Target(tuple(labels), MULTI_LABEL in table.schema.metadata)


def check_columns(table: pa.Table, schema: pa.Schema, target: Target, where: str) -> pa.Table:
    """The table with the columns of `schema`; raises DataError, which names the column and the row, for any other."""
    columns = [_as(table[name], schema.field(name).type, f"{where}: column {name}") for name in schema.names]
    checked = pa.table(columns, schema=schema.with_metadata(table.schema.metadata))
    for name in ("id", "text"):
        text_column(checked[name], f"{where}: column {name}")
    number_rows(checked["teacher_logits"], f"{where}: column teacher_logits", target.outputs)
    _check_labels(checked["label"], target, where)
    _check_candidates(checked["candidates"], target, where)
    return checked


def _as(column: Any, kind: Any, where: str) -> Any:
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except (pa.ArrowException, TypeError) as exc:
        raise DataError(f"{where} holds {short_repr(str(column.type))}, not {kind}; build it again") from exc


def _check_labels(column: Any, target: Target, where: str) -> None:
    """Raises DataError for a label that is none of the names, and for a number that is not finite."""
    values = pc.list_flatten(column) if target.multi_label else column
    if target.regression:
        known = values.drop_null()
        if not np.isfinite(np.asarray(known, dtype=np.float64)).all():
            raise DataError(f"{where}: column label has a number that is not finite; correct it or leave it empty")
        return
    unknown = set(pc.unique(values).to_pylist()) - {*target.labels, *([] if target.multi_label else [None])}
    if unknown:
        raise DataError(f"{where}: label {short_repr(min(unknown, key=str))} is none of {', '.join(target.labels)}")


def _check_candidates(column: Any, target: Target, where: str) -> None:
    where = f"{where}: column candidates"
    if column.null_count:
        row = int(np.asarray(column.is_null()).argmax())
        raise DataError(f"{where} row {row} is empty (null); give an empty list")
    flat = pc.list_flatten(column).combine_chunks()
    if flat.null_count:
        raise DataError(f"{where} holds an empty candidate (null); leave it out")
    for name in ("id", "text", "source"):
        text_column(flat.field(name), f"{where}.{name}")
    numbers(flat.field("score"), f"{where}.score")
    number_rows(flat.field("teacher_logits"), f"{where}.teacher_logits", target.outputs)
