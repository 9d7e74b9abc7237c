"""The teacher as numbers alone: a Parquet file with texts and their logits or probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from augkd.data.arrow_columns import number_rows, text_column
from augkd.data.target import Target
from augkd.errors import DataError, first_line, short_repr
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from augkd.models.classifier import Pair

_SUM = 0.01  # how far from 1 probabilities may add up: float16 rounds each by 5e-4, three decimals of a text by as much


class GivenTeacher:
    """A teacher that is only numbers: a Parquet file with the texts and a list column of logits or probabilities."""

    def __init__(
        self, path: Path, column: str, labels: Target | Sequence[str], order: Sequence[str] | None, drop: bool
    ):
        """`order` names the label of each value of the column; with `drop`, `logits` gives nan for a missing text.

        Raises DataError when the file is missing or does not fit the labels.
        """
        self._drop = drop
        self._path = path
        self.rows = 0
        values, texts = _read_given(path, column)
        target = Target.of(labels)
        if values.shape[1] != target.outputs:
            raise DataError(
                f"{path}: column '{column}' has {values.shape[1]} values per row, the task needs {target.outputs}"
            )
        if target.labels:
            values = values[:, _label_columns(path, target.labels, order)]
        if column == "probabilities":
            _check_probabilities(path, values, texts, target)
            values = target.logits_of(values).astype(np.float32)
        self._values = values
        self._rows = {text: row for row, text in enumerate(texts)}

    def has(self, texts: Sequence[Pair]) -> bool:
        """Whether all of `texts` have numbers."""
        return not self._missing(texts)

    def _missing(self, texts: Sequence[Pair]) -> list[Pair]:
        return [text for text in texts if text not in self._rows]

    def logits(self, texts: Sequence[Pair], progress: Steps | None = None) -> NDArray[np.float32]:
        """Logits of `texts`. Raises DataError for a text without numbers, unless they may be dropped (nan)."""
        missing = self._missing(texts)
        if missing and not self._drop:
            raise DataError(
                f"{self._path} has no teacher output for {len(missing)} of {len(texts)} texts, e.g. "
                f"{short_repr(missing[0][0])}; add them, or set teacher.missing: drop"
            )
        logits = np.full((len(texts), self._values.shape[1]), np.nan, dtype=np.float32)
        for position, text in enumerate(texts):
            if text in self._rows:
                logits[position] = self._values[self._rows[text]]
        return logits


def _label_columns(path: Path, labels: Sequence[str], order: Sequence[str] | None) -> list[int]:
    """For each label the position of its value in the file."""
    if order is None:
        raise DataError(f"{path}: name the label of each value, e.g. teacher.labels: [{', '.join(labels)}]")
    if sorted(order) != sorted(labels):
        raise DataError(f"teacher.labels is {list(order)}; the task's labels are {list(labels)}")
    return [list(order).index(label) for label in labels]


def _check_probabilities(path: Path, values: NDArray[np.float32], texts: Sequence[Pair], target: Target) -> None:
    """Raises DataError for a row that is no distribution: logits in the wrong column would be trained on."""
    if target.regression:
        raise DataError(f"{path}: a regression task has no probabilities; set teacher.column: logits")
    wrong = ((values < 0) | (values > 1)).any(axis=1)
    sums = ""
    if target.activation == "softmax":
        sums = " with sum 1"
        wrong |= np.abs(values.sum(axis=1) - 1) > _SUM
    if wrong.any():
        row = int(wrong.argmax())
        shown = ", ".join(f"{value:.4g}" for value in values[row, :8])
        raise DataError(
            f"{path}: {wrong.sum()} of {len(values)} rows of column 'probabilities' are not in [0, 1]{sums}, "
            f"first row {row}, {short_repr(texts[row][0], 30)}: {shown}; set teacher.column: logits if these are logits"
        )


def _read_given(path: Path, column: str) -> tuple[NDArray[np.float32], list[Pair]]:
    """The column's values (n, values) and the texts."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.exists() for file in files):
        raise DataError(f"teacher logits {path} do not exist; give a Parquet file or a folder of them")
    try:
        table = pa.concat_tables([pq.read_table(file) for file in files], promote_options="default")
        table.validate(full=True)  # offsets that lead out of a file end in a signal
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise DataError(f"teacher logits {path} cannot be read as Parquet: {first_line(exc)}") from exc
    for name in ("text", column):
        if name not in table.column_names:
            raise DataError(f"teacher logits {path} have no column '{name}'; they have {', '.join(table.column_names)}")
    where = f"teacher logits {path}: column"
    values = number_rows(table[column], f"{where} '{column}'")
    texts = text_column(table["text"], f"{where} 'text'").to_pylist()
    pairs: list[str | None] = [None] * table.num_rows
    if "text_pair" in table.column_names:
        pairs = text_column(table["text_pair"], f"{where} 'text_pair'", nullable=True).to_pylist()
    if not len(values):
        raise DataError(f"teacher logits {path} have no rows; write one for each text")
    return values, list(zip(texts, pairs, strict=True))
