"""The transfer set: each labelled text with its candidates and the teacher's logits of all of them, in Parquet.

One row per original, with its candidates nested in it so that shuffling never parts them.
`datasets.load_dataset(folder)` opens it, and the JSONL of Minimax-kNN and Glitter can be written from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from augkd.data.target import Target
from augkd.data.task import Example
from augkd.data.transfer_card import transfer_card
from augkd.data.transfer_table import MULTI_LABEL, check_columns, target_of
from augkd.errors import DataError, first_line
from augkd.workspace.files import replacing, sweep_writes_of, write_text
from augkd.workspace.manifest_kinds import TransferSetManifest
from augkd.workspace.manifests import MANIFEST, check_if_ours, read_manifest

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

Labels = Target | Sequence[str]  # what is predicted; class names alone mean one class per text


@dataclass(frozen=True)
class TransferSet:
    """A memory-mapped transfer set; its `target` is what labels and logits predict."""

    table: pa.Table
    target: Target
    folder: Path

    @classmethod
    def open(cls, folder: Path) -> TransferSet:
        """Opens the Parquet files in `folder`/data; raises DataError when they are no transfer set of augkd.

        With a manifest, the checksums are compared first: raises WorkspaceError, which names the file that has changed.
        """
        files = sorted((folder / "data").glob("*.parquet"))
        check_if_ours(folder)
        if not files:
            raise DataError(f"{folder} has no data/*.parquet; give a folder that `augkd augment` wrote")
        try:
            table = pa.concat_tables([pq.read_table(file, memory_map=True) for file in files])
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as exc:
            raise DataError(
                f"{files[0]} is not a readable Parquet file ({first_line(exc)}); build the transfer set again"
            ) from exc
        target = target_of(table, schema(Target()).names, str(folder))
        return cls(check_columns(table, schema(target), target, str(folder)), target, folder)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes or labels in the order of the logits; () for regression."""
        return self.target.labels

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> list[Any]:
        """One column of the originals, as Python values."""
        return list(self.table[name].to_pylist())

    def teacher(self) -> NDArray[np.float32]:  # (n, outputs)
        """The teacher's logits of the originals."""
        return _matrix(self.table["teacher_logits"].combine_chunks(), self.target.outputs, self.folder)

    def candidates(self) -> Candidates:
        """All candidates, flat, each with the row of its owner."""
        lists = self.table["candidates"].combine_chunks()
        flat = lists.flatten()
        owner = np.repeat(np.arange(len(self)), np.asarray(lists.value_lengths()))
        return Candidates(
            owner=owner,
            text=flat.field("text").to_pylist(),
            text_pair=flat.field("text_pair").to_pylist(),
            source=flat.field("source").to_pylist(),
            score=np.array(flat.field("score"), dtype=np.float32),
            teacher=_matrix(flat.field("teacher_logits"), self.target.outputs, self.folder),
        )

    def candidate_counts(self) -> NDArray[np.int64]:  # (n,)
        """How many candidates each original has."""
        return np.asarray(pc.list_value_length(self.table["candidates"]).fill_null(0), dtype=np.int64)

    def write_jsonl(self, path: Path) -> None:
        """Writes the JSONL that Minimax-kNN and Glitter read: guid, label, text_a, text_b, augmented_samples."""
        sweep_writes_of(path)
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for batch in self.table.to_batches():
                for original in batch.to_pylist():
                    stream.write(json.dumps(_jsonl_row(original), ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Candidates:
    """The candidates of a transfer set, flat, ordered by owner and then by the rank their source gave them."""

    owner: NDArray[np.int64]  # (m,) row of the original
    text: list[str]
    text_pair: list[str | None]
    source: list[str]
    score: NDArray[np.float32]  # (m,)
    teacher: NDArray[np.float32]  # (m, outputs) logits


def schema(target: Target) -> pa.Schema:
    """The Parquet schema; a label is stored as the name of its class, as a list of names, or as a float."""
    label = pa.list_(pa.string()) if target.multi_label else pa.float64() if target.regression else pa.string()
    metadata: dict[str | bytes, str | bytes] = {"augkd.labels": json.dumps(list(target.labels))}
    return pa.schema(
        [
            ("id", pa.string()),
            ("text", pa.string()),
            ("text_pair", pa.string()),
            ("label", label),
            ("teacher_logits", pa.list_(pa.float32())),
            ("candidates", pa.list_(_CANDIDATE)),
        ],
        metadata=metadata | ({MULTI_LABEL: "true"} if target.multi_label else {}),
    )


def write_rows(folder: Path, rows: Iterator[Mapping[str, Any]], labels: Labels) -> None:
    """Writes `data/train-00000.parquet`, a row group at a time; the caller writes the manifest, last."""
    with replacing(folder / "data" / "train-00000.parquet") as temporary:
        columns = schema(Target.of(labels))
        with pq.ParquetWriter(temporary, columns, compression="zstd") as writer:
            group: list[Mapping[str, Any]] = []
            for row in rows:
                group.append(row)
                if len(group) == _ROW_GROUP:
                    writer.write_table(pa.Table.from_pylist(group, schema=columns))
                    group = []
            writer.write_table(pa.Table.from_pylist(group, schema=columns))


def in_memory(rows: Sequence[Mapping[str, Any]], labels: Labels) -> TransferSet:
    """A transfer set of these rows that is on no disk."""
    target = Target.of(labels)
    return TransferSet(pa.Table.from_pylist(list(rows), schema=schema(target)), target, Path())


def write_card(folder: Path, title: str, lines: Sequence[str]) -> None:
    """Writes README.md of the transfer set in `folder`, with `lines` on how it was made."""
    transfer = TransferSet.open(folder)
    write_text(folder / "README.md", transfer_card(transfer.table, transfer.target, title, lines))


def write_card_again(folder: Path, title: str | None = None) -> Path:
    """Writes README.md again from the rows and, where there is one, the manifest; returns its path.

    `title` is the name of the task unless given. Raises DataError when the folder holds no transfer set.
    """
    manifest = read_manifest(folder, TransferSetManifest) if (folder / MANIFEST).exists() else None
    counts = manifest.data.on_disk() if manifest else {}
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in counts.items()]
    sweep_writes_of(folder / "README.md")
    write_card(folder, title or (manifest.task if manifest else folder.name), lines)
    return folder / "README.md"


def describe(row: Mapping[str, Any], labels: Labels) -> Iterator[str]:
    """One original and its candidates as lines of text: score, source, text, and the teacher's prediction."""
    target = Target.of(labels)
    yield f"[{row['id']}] {_joined(row)}  (label {row['label']}; teacher {_prediction(row['teacher_logits'], target)})"
    for candidate in row["candidates"]:
        prediction = _prediction(candidate["teacher_logits"], target)
        yield f"    {candidate['score']:.3f} {candidate['source']}: {_joined(candidate)}  (teacher {prediction})"


def _joined(row: Mapping[str, Any]) -> str:
    return str(row["text"]) if row["text_pair"] is None else f"{row['text']} ‖ {row['text_pair']}"


def _prediction(logits: Sequence[float], target: Target) -> str:
    """What the logits predict, each class or label with its probability; or the number."""
    if target.regression:
        return f"{logits[0]:.2f}"
    (predicted,) = target.predicted_names(np.array([logits]))
    return ", ".join(f"{name} {probability:.2f}" for name, probability in predicted.items()) or "no label"


def _matrix(lists: pa.ListArray, outputs: int, folder: Path) -> NDArray[np.float32]:  # (rows, outputs)
    flat = np.asarray(lists.flatten(), dtype=np.float32)
    if len(flat) != len(lists) * outputs:
        raise DataError(
            f"{folder}: some rows of teacher_logits do not have {outputs} values; build the transfer set again"
        )
    return flat.reshape(-1, outputs).copy()  # Arrow's memory is read-only, and torch needs memory it can write to


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


def original_row(
    example: Example, logits: NDArray[Any], candidates: list[dict[str, Any]], labels: Labels
) -> dict[str, Any]:
    """One row of a transfer set: an original with its label by name, its logits (outputs,) and its candidates."""
    return {
        "id": example.id,
        "text": example.text,
        "text_pair": example.text_pair,
        "label": Target.of(labels).decode(example.label),
        "teacher_logits": logits.tolist(),
        "candidates": candidates,
    }
