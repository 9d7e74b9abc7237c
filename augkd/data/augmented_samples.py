"""Reads the JSONL of Minimax-kNN and Glitter, in which each labelled text carries its candidates.

Rows are matched with those of a task by the ids that `load_task` gives them: `id`, `guid`, or the number of the row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from augkd.data.columns import row_ids
from augkd.data.tables import read_rows
from augkd.errors import DataError, short_repr


def read_augmented_samples(path: Path) -> dict[str, list[tuple[str, str | None]]]:
    """The candidates (text, second text) of each training row by its id, in file order; raises DataError."""
    rows = list(read_rows(path, ("id", "guid", "augmented_samples")))
    if not any("augmented_samples" in row for row in rows):
        raise DataError(f"{path} has no column 'augmented_samples'; give a Minimax-kNN or Glitter file")
    candidates = {}
    for number, (key, row) in enumerate(zip(row_ids(rows, "train"), rows, strict=True), 1):
        samples = row.get("augmented_samples") or []
        if not isinstance(samples, list):
            raise DataError(f"{path} row {number}: augmented_samples is {short_repr(samples)}; give a list")
        candidates[key] = [_sample(sample, f"{path} row {number}") for sample in samples]
    return candidates


def _sample(sample: Any, where: str) -> tuple[str, str | None]:
    if isinstance(sample, str):
        return sample, None
    text, pair = None, None
    if isinstance(sample, dict):
        text = sample.get("text_a", sample.get("text"))
        pair = sample.get("text_b", sample.get("text_pair"))
    if not isinstance(text, str) or not isinstance(pair, str | None):
        raise DataError(
            f"{where}: augmented sample {short_repr(sample)} is not a text; give a string or an object with text_a"
        )
    return text, pair or None
