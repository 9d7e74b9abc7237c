"""Blocks of `masked_words.fill` on disk, so that a substitution that was stopped goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from augkd.workspace import replacing

_SCHEMA = pa.schema(
    [
        ("text", pa.int32()),  # position in the block
        ("start", pa.int32()),
        ("stop", pa.int32()),
        ("words", pa.list_(pa.string())),
        ("chances", pa.list_(pa.float32())),
    ]
)


class Place(NamedTuple):
    """A slot of the block's text number `text`."""

    text: int
    start: int
    stop: int
    words: tuple[str, ...]
    chances: NDArray[np.float32]


def write_block(path: Path, key: str, places: list[Place], rows: int) -> None:
    """The slots of a block whose texts and options `key` names, and the rows that were forwarded for them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = zip(*places, strict=True) if places else [[]] * len(_SCHEMA)
    schema = _SCHEMA.with_metadata({"block": json.dumps({"key": key, "rows": rows})})
    table = pa.table([pa.array(list(v), f.type) for v, f in zip(columns, _SCHEMA, strict=True)], schema=schema)
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_block(path: Path, key: str) -> tuple[list[Place], int] | None:
    """What `write_block` wrote; None where there is nothing, or that of other texts or options."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        told = json.loads((table.schema.metadata or {})[b"block"])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None  # half a file after a power cut is made again
    if told["key"] != key:
        return None
    rows = zip(*(table.column(name).to_pylist() for name in _SCHEMA.names), strict=True)
    places = [Place(text, a, b, tuple(words), np.array(p, dtype=np.float32)) for text, a, b, words, p in rows]
    return places, int(told["rows"])
