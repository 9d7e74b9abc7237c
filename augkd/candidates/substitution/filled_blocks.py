"""Blocks of `masked_words.fill` on disk, so that an interrupted substitution resumes where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from augkd.errors import WorkspaceError
from augkd.workspace.checksums import check, read_signed, table_of, write_signed
from augkd.workspace.files import replacing

_SCHEMA = pa.schema(
    [
        ("text", pa.int32()),  # position in the block
        ("start", pa.int32()),
        ("stop", pa.int32()),
        ("words", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True, slots=True)
class Slot:
    """A word of a text, and the words that may replace it."""

    start: int  # characters
    stop: int
    words: tuple[str, ...]  # most probable first, cased like the original; never empty
    probabilities: NDArray[np.float32]  # (len(words),) the model's, over its whole vocabulary


@dataclass(frozen=True)
class FilledTexts:
    """The slots of each text, and the rows forwarded to fill them."""

    slots: list[list[Slot]]
    rows: int  # one for each masked word


def write_block(path: Path, key: str, filled: FilledTexts) -> None:
    """Writes the slots of a block; `key` is the fingerprint of its texts and options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(text, s.start, s.stop, s.words, s.probabilities) for text, slots in enumerate(filled.slots) for s in slots]
    columns: Sequence[Sequence[object]] = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
    header = {"key": key, "rows": filled.rows, "texts": len(filled.slots)}
    schema = _SCHEMA.with_metadata({"block": json.dumps(header)})
    table = pa.table([pa.array(v, f.type) for v, f in zip(columns, _SCHEMA, strict=True)], schema=schema)
    checksum_path(path).unlink(missing_ok=True)
    with replacing(path) as temporary:
        pq.write_table(table, temporary)
    write_signed(checksum_path(path), {"files": table_of(path.parent, [path.name])})


def checksum_path(path: Path) -> Path:
    """Where the checksum of a block lies."""
    return path.with_suffix(".json")


def read_block(path: Path, key: str) -> FilledTexts | None:
    """What `write_block` wrote; None where there is none that is complete and unchanged, or one of other texts."""
    try:
        check(path.parent, read_signed(checksum_path(path))["files"])
    except WorkspaceError:
        return None  # it is filled again, from the same texts
    try:
        table = pq.read_table(path)
        header = json.loads((table.schema.metadata or {})[b"block"])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None  # half a file, after a power cut: it is filled again
    if header["key"] != key:
        return None
    slots: list[list[Slot]] = [[] for _ in range(header["texts"])]
    for text, start, stop, words, probabilities in zip(*(column.to_pylist() for column in table.columns), strict=True):
        slots[text].append(Slot(start, stop, tuple(words), np.array(probabilities, dtype=np.float32)))
    return FilledTexts(slots, header["rows"])
