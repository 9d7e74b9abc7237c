"""The transfer set: each labelled text with its candidates and what the teacher says of all of them, in Parquet.

Nested, one row an original, so that no shuffle parts an example from its candidates. `datasets.load_dataset(folder)`
opens it; the JSONL of Minimax-kNN and Glitter can be written from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from augkd.data.transfer_card import transfer_card
from augkd.errors import DataError
from augkd.workspace.files import replacing, write_text

_CANDIDATE = pa.struct(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("text_pair", pa.string()),
        ("source", pa.string()),
        ("score", pa.float32()),
        ("teacher_logits", pa.list_(pa.float32())),
    ]
)
_ROW_GROUP = 10_000  # originals


@dataclass(frozen=True)
class TransferSet:
    """A transfer set, memory-mapped. `labels` are the class names in the order of the logits; () for regression."""

    table: pa.Table
    labels: tuple[str, ...]
    folder: Path

    @classmethod
    def open(cls, folder: Path) -> TransferSet:
        """Raises DataError when the folder holds no transfer set of augkd's."""
        files = sorted((folder / "data").glob("*.parquet"))
        if not files:
            raise DataError(f"{folder} has no data/*.parquet; give a folder that `augkd augment` wrote")
        try:
            table = pa.concat_tables([pq.read_table(file, memory_map=True) for file in files])
        except (pa.ArrowException, OSError) as exc:
            raise DataError(f"{files[0]} is not a readable Parquet file ({exc}); build the transfer set again") from exc
        stored = (table.schema.metadata or {}).get(b"augkd.labels")
        wanted = schema(("?",)).names
        missing = [name for name in wanted if name not in table.schema.names]
        if stored is None or missing:
            what = f"lacks {', '.join(missing)}" if missing else "does not say its label names"
            raise DataError(f"{folder} is not one of augkd's transfer sets ({what}); build one with `augkd augment`")
        return cls(table, tuple(json.loads(stored)), folder)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> list[Any]:
        """One column of the originals as Python values."""
        return list(self.table[name].to_pylist())

    def teacher(self) -> NDArray[np.float32]:  # (n, outputs)
        """Teacher logits of the originals."""
        return _matrix(self.table["teacher_logits"].combine_chunks(), len(self.labels) or 1, self.folder)

    def candidates(self) -> Candidates:
        """All candidates, flat, with the row of their owner."""
        lists = self.table["candidates"].combine_chunks()
        flat = lists.flatten()
        owner = np.repeat(np.arange(len(self)), np.asarray(lists.value_lengths()))
        return Candidates(
            owner=owner,
            text=flat.field("text").to_pylist(),
            text_pair=flat.field("text_pair").to_pylist(),
            source=flat.field("source").to_pylist(),
            score=np.array(flat.field("score"), dtype=np.float32),
            teacher=_matrix(flat.field("teacher_logits"), len(self.labels) or 1, self.folder),
        )

    def write_jsonl(self, path: Path) -> None:
        """Writes the JSONL that Minimax-kNN and Glitter read: guid, label, text_a, text_b, augmented_samples."""
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for row in self.table.to_batches():
                for original in row.to_pylist():
                    stream.write(json.dumps(_jsonl_row(original), ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Candidates:
    """Candidates of a whole transfer set, flat; owners ascend, and within an owner the source's best comes first."""

    owner: NDArray[np.int64]  # (m,) row of the original
    text: list[str]
    text_pair: list[str | None]
    source: list[str]
    score: NDArray[np.float32]  # (m,)
    teacher: NDArray[np.float32]  # (m, outputs) logits


def schema(labels: Sequence[str]) -> pa.Schema:
    """The Parquet schema; labels are stored by name, or as a float for regression."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("text", pa.string()),
            ("text_pair", pa.string()),
            ("label", pa.string() if labels else pa.float64()),
            ("teacher_logits", pa.list_(pa.float32())),
            ("candidates", pa.list_(_CANDIDATE)),
        ],
        metadata={"augkd.labels": json.dumps(list(labels))},
    )


def write_rows(folder: Path, rows: Iterator[Mapping[str, Any]], labels: Sequence[str]) -> None:
    """Writes `data/train-00000.parquet`, a row group at a time; no manifest (that is the caller's, last)."""
    with replacing(folder / "data" / "train-00000.parquet") as temporary:
        wanted = schema(labels)
        with pq.ParquetWriter(temporary, wanted, compression="zstd") as writer:
            group: list[Mapping[str, Any]] = []
            for row in rows:
                group.append(row)
                if len(group) == _ROW_GROUP:
                    writer.write_table(pa.Table.from_pylist(group, schema=wanted))
                    group = []
            writer.write_table(pa.Table.from_pylist(group, schema=wanted))


def in_memory(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> TransferSet:
    """The same, never written: for training without candidates."""
    return TransferSet(pa.Table.from_pylist(list(rows), schema=schema(labels)), tuple(labels), Path())


def write_card(folder: Path, title: str, lines: Sequence[str]) -> None:
    """Writes README.md of the rows that lie there, with `lines` on how they were made."""
    transfer = TransferSet.open(folder)
    write_text(folder / "README.md", transfer_card(transfer.table, transfer.labels, title, lines))


def described(row: Mapping[str, Any], labels: Sequence[str]) -> Iterator[str]:
    """One original and its candidates as lines to read: text, what the teacher believes, similarity, source."""
    yield f"[{row['id']}] {_joined(row)}  (label {row['label']}; teacher {_belief(row['teacher_logits'], labels)})"
    for candidate in row["candidates"]:
        belief = _belief(candidate["teacher_logits"], labels)
        yield f"    {candidate['score']:.3f} {candidate['source']}: {_joined(candidate)}  (teacher {belief})"


def _joined(row: Mapping[str, Any]) -> str:
    return str(row["text"]) if row["text_pair"] is None else f"{row['text']} ‖ {row['text_pair']}"


def _belief(logits: Sequence[float], labels: Sequence[str]) -> str:
    if not labels:
        return f"{logits[0]:.2f}"
    values = np.exp(np.array(logits) - max(logits))
    place = int(values.argmax())
    return f"{labels[place]} {values[place] / values.sum():.2f}"


def _matrix(lists: pa.ListArray, outputs: int, folder: Path) -> NDArray[np.float32]:
    flat = np.asarray(lists.flatten(), dtype=np.float32)
    if len(flat) != len(lists) * outputs:
        raise DataError(
            f"{folder}: teacher_logits do not have {outputs} values in each row; build the transfer set again"
        )
    return flat.reshape(-1, outputs).copy()  # Arrow's memory is read-only, torch wants to own its own


def _jsonl_row(original: Mapping[str, Any]) -> dict[str, Any]:
    samples = [
        {"text_a": candidate["text"], "text_b": candidate["text_pair"]}
        if candidate["text_pair"] is not None
        else candidate["text"]
        for candidate in original["candidates"]
    ]
    return {
        "guid": original["id"],
        "label": original["label"],
        "text_a": original["text"],
        "text_b": original["text_pair"],
        "augmented_samples": samples,
    }
