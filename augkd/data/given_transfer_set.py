"""A transfer set made elsewhere: located, read as a task, and copied without what a run must not train on.

Training from it needs no teacher, index or corpus, since its rows hold the teacher's logits. Its labelled texts are the
task, so validation and test are cut from them; the copy leaves out their rows, and every candidate that equals one of
their texts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from augkd.data.cleaning import normalised
from augkd.data.task import Task, load_task
from augkd.data.transfer_set import TransferSet, write_rows
from augkd.errors import DataError, short_repr
from augkd.workspace.cache import artefact_here, data_here, has_manifest
from augkd.workspace.manifest_kinds import TransferSetManifest
from augkd.workspace.names import user_path
from augkd.workspace.progress import Progress, silent
from augkd.workspace.storage import url_of


def locate_transfer_set(name: str, progress: Progress = silent) -> Path:
    """The local folder of a transfer set: a folder, or the copy of a URL or of a data set of the Hub.

    Raises DataError when it is none of these, StorageError for what is damaged in storage.
    """
    if (url := url_of(name)) is not None:
        return _stored_transfer_set(url, progress)
    folder = user_path(name)
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise DataError(f"transfer set '{name}' does not exist; give its folder, or a Hub name like owner/name")
    from huggingface_hub import snapshot_download  # 0.5 s to import

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=["data/*.parquet", "README.md"]))
    except Exception as exc:  # the Hub client raises its own, httpx's and OSError; all mean that the download failed
        reason = str(exc).strip().split("\n")[0]
        raise DataError(
            f"transfer set '{name}' is not a folder and cannot be downloaded from the Hub: {reason[:160]}"
        ) from exc


def _stored_transfer_set(url: str, progress: Progress) -> Path:
    """The copy of a finished transfer set, or of one without a manifest, like those of other programs."""
    if has_manifest(url):
        return artefact_here(url, TransferSetManifest.KIND, progress)
    folder = data_here(url, lambda file: bool(re.fullmatch(r"data/[^/]+\.parquet", file)), progress)
    if folder is None:
        raise DataError(f"{url} has no data/*.parquet; give the address of a transfer set that `augkd augment` wrote")
    return folder


def task_of(transfer: TransferSet, seed: int = 0) -> Task:
    """The labelled texts of a transfer set as a task; validation and test are cut from them, a tenth each."""
    task = load_task(
        dataset=str(transfer.folder / "data"),
        labels=list(transfer.labels) or None,
        regression=None if transfer.labels else True,
        name=transfer.folder.name,
        seed=seed,
    )
    return replace(task, multi_label=transfer.target.multi_label)  # rows without labels do not show it


@dataclass
class CopyCounts:
    """How many rows and candidates were copied, and how many were left out."""

    originals: int = 0
    candidates: int = 0
    candidates_unique: int = 0
    excluded_evaluation_texts: int = 0
    _texts: set[tuple[str, str | None]] = field(default_factory=set, repr=False)


def copy_training_rows(source: TransferSet, target: Path, ids: Collection[str], task: Task) -> CopyCounts:
    """Writes the rows of the originals with these ids to `target`, without candidates that are evaluation texts.

    Raises DataError when an original that would be trained on is itself a validation or test text.
    """
    counts, evaluation = CopyCounts(), {normalised(text) for text in task.evaluation_texts()} - {""}
    write_rows(target, _rows(source, set(ids), evaluation, counts), source.target)
    if counts.originals != len(ids):
        raise DataError(f"{source.folder} has rows that share an id; give each its own in the column id")
    return counts


def _rows(source: TransferSet, ids: set[str], evaluation: set[str], counts: CopyCounts) -> Iterator[dict[str, Any]]:
    for file in sorted((source.folder / "data").glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                if row["id"] in ids:
                    yield _checked(row, evaluation, counts, source.folder)


def _checked(row: dict[str, Any], evaluation: set[str], counts: CopyCounts, folder: Path) -> dict[str, Any]:
    if _is_among(row, evaluation):
        raise DataError(
            f"{folder}: the labelled text {short_repr(row['text'])} is a validation or test text of the task; "
            "give a transfer set that was made for this task"
        )
    kept = [candidate for candidate in row["candidates"] if not _is_among(candidate, evaluation)]
    counts.originals += 1
    counts.candidates += len(kept)
    counts.excluded_evaluation_texts += len(row["candidates"]) - len(kept)
    counts._texts |= {(candidate["text"], candidate["text_pair"]) for candidate in kept}
    counts.candidates_unique = len(counts._texts)
    return {**row, "candidates": kept}


def _is_among(row: dict[str, Any], evaluation: set[str]) -> bool:
    return bool({normalised(row["text"]), normalised(row["text_pair"] or "")} & evaluation)
