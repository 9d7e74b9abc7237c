"""Blocks of `masked_words.fill` on disk, so that a substitution that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from augkd.workspace.files import replacing

_SCHEMA = pa.schema(
    [
        ("text", pa.int32()),  # position in the block
        ("start", pa.int32()),
        ("stop", pa.int32()),
        ("words", pa.list_(pa.string())),
        ("chances", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a text where another word may stand."""

    start: int  # characters
    stop: int
    words: tuple[str, ...]  # the most probable first, cased like the original; never empty
    chances: NDArray[np.float32]  # (len(words),) the model's probability of each, of its whole vocabulary


@dataclass(frozen=True)
class Filled:
    """The slots of each text, and what they cost."""

    slots: list[list[Slot]]
    rows: int  # forwarded: one for each masked word


def write_block(path: Path, key: str, filled: Filled) -> None:
    """What was found for a block whose texts and options `key` names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(text, s.start, s.stop, s.words, s.chances) for text, slots in enumerate(filled.slots) for s in slots]
    columns: Sequence[Sequence[object]] = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
    told = {"key": key, "rows": filled.rows, "texts": len(filled.slots)}
    schema = _SCHEMA.with_metadata({"block": json.dumps(told)})
    table = pa.table([pa.array(v, f.type) for v, f in zip(columns, _SCHEMA, strict=True)], schema=schema)
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_block(path: Path, key: str) -> Filled | None:
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
    slots: list[list[Slot]] = [[] for _ in range(told["texts"])]
    for text, start, stop, words, chances in zip(*(column.to_pylist() for column in table.columns), strict=True):
        slots[text].append(Slot(start, stop, tuple(words), np.array(chances, dtype=np.float32)))
    return Filled(slots, told["rows"])
