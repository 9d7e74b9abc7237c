"""Hostile values, and valid ones with a hostile change: what hypothesis draws."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]

ATOMS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 10**9, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.0, 0.5, -0.5, 1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "a", "0", "NaN", "null", "\0", "\ud800", "\x1b[2J", "\u202e"),
    *(
        "../../x",
        "/abs/dir",
        "~nouser/x",
        ".",
        "..",
        "a/b",
        "x" * 5000,
        "é" * 300,
        "１",
        "a\nb",
        "[/x]",
        "](javascript:x)",
    ),
    *(
        [],
        {},
        [None],
        [[]],
        [1, "a"],
        [1, 2, 3],
        [0.5],
        {"a": None},
        {"": 0},
        {"kind": "lexical"},
        {"a": {"b": {}}},
        DEEP,
    ),
]
atoms = st.sampled_from(ATOMS).map(copy.deepcopy)  # a change must not reach the next case
texts = st.one_of(st.text(max_size=40), st.sampled_from([value for value in ATOMS if isinstance(value, str)]))
values = st.one_of(
    atoms, st.recursive(st.one_of(atoms, texts), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
)


@st.composite
def changed(draw: st.DrawFn, value: Any, most: int = 3) -> Any:
    """`value` with one to `most` places replaced, removed, doubled or added to."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(value))
        if not places:
            return draw(values)
        holder, key = draw(st.sampled_from(places))
        how = draw(st.integers(0, 9))
        if how == 0 and isinstance(holder, dict):
            del holder[key]
        elif how == 1 and isinstance(holder, list):
            holder.insert(key, draw(values))
        elif how == 2 and isinstance(holder, dict):
            holder[draw(texts)] = draw(values)
        elif how == 3 and isinstance(holder, list):
            del holder[key]
        else:
            holder[key] = draw(values)
    return value


def _places(value: Any) -> Any:
    """Every place of a tree, as the table or list that holds it and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def as_json(value: Any) -> str:
    """JSON as a stranger may write it: with NaN, lone surrogates and any depth."""
    try:
        return json.dumps(value, indent=2)
    except (TypeError, RecursionError):
        return repr(value)


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes cut, flipped, doubled or replaced."""
    how = draw(st.integers(0, 4))
    if how == 0 or not content:
        return draw(st.binary(max_size=64))
    place = draw(st.integers(0, len(content) - 1))
    if how == 1:
        return content[:place]
    if how == 2:
        return content[:place] + content[place:] * 2
    if how == 3:
        return content[:place] + draw(st.binary(min_size=1, max_size=8)) + content[place + 1 :]
    return content[:place] + bytes([content[place] ^ (1 << draw(st.integers(0, 7)))]) + content[place + 1 :]


KINDS = [
    *(pa.string(), pa.large_string(), pa.binary(), pa.int64(), pa.int8(), pa.uint64(), pa.float32(), pa.float64()),
    *(pa.bool_(), pa.null(), pa.date32(), pa.timestamp("s"), pa.dictionary(pa.int32(), pa.string())),
    *(pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.string()), pa.list_(pa.float32(), 2)),
    *(pa.struct([("text", pa.string())]), pa.list_(pa.struct([("text", pa.string()), ("score", pa.float32())]))),
]


@st.composite
def changed_table(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    """A table with columns of other types, with nulls, fewer columns, other rows or other metadata."""
    for _ in range(draw(st.integers(1, 2))):
        how = draw(st.integers(0, 4))
        place = draw(st.integers(0, table.num_columns - 1))
        name = table.column_names[place]
        if how == 0 and table.num_columns > 1:
            table = table.remove_column(place)
        elif how == 1:
            table = table.slice(0, draw(st.integers(0, table.num_rows)))
        elif how == 2:
            metadata = {
                **(table.schema.metadata or {}),
                b"augkd.labels": as_json(draw(values)).encode("utf-8", "replace"),
            }
            table = table.replace_schema_metadata(metadata)
        else:
            table = table.set_column(place, name, _column(draw, table, place))
    return table


def _column(draw: st.DrawFn, table: pa.Table, place: int) -> Any:
    rows = table.num_rows
    if draw(st.booleans()):
        python = [draw(changed(value)) if draw(st.booleans()) else value for value in table.column(place).to_pylist()]
        for kind in (table.schema.field(place).type, None):
            try:
                return pa.array(python, kind)
            except (pa.ArrowException, TypeError, ValueError, OverflowError, UnicodeEncodeError, AttributeError):
                continue
    return pa.nulls(rows, draw(st.sampled_from(KINDS)))


@st.composite
def changed_tensors(draw: st.DrawFn, tensors: dict[str, Any]) -> dict[str, Any]:
    """Arrays of other types and shapes, with other names or without some."""
    tensors = dict(tensors)
    for _ in range(draw(st.integers(1, 2))):
        if not tensors:
            return {"x": np.zeros(1)}
        name = draw(st.sampled_from(sorted(tensors)))
        how = draw(st.integers(0, 3))
        if how == 0:
            tensors.pop(name)
        elif how == 1:
            kinds = [np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_, np.float64, np.uint64]
            with np.errstate(all="ignore"):
                tensors[name] = tensors[name].astype(draw(st.sampled_from(kinds)))
        elif how == 2:
            shape = draw(st.lists(st.integers(0, 4), max_size=3))
            tensors[name] = np.zeros(shape, tensors[name].dtype)
        else:
            flat = np.array(tensors[name]).reshape(-1)
            if flat.size and flat.dtype.kind in "fiu":
                with np.errstate(all="ignore"):
                    extreme = np.array(draw(st.sampled_from([-1, 0, 255, 1e9, 9e18, np.nan, np.inf])))
                    flat[draw(st.integers(0, flat.size - 1))] = extreme.astype(flat.dtype)
            tensors[name] = flat.reshape(tensors[name].shape)
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}
