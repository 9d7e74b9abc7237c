"""What a task predicts: one of several classes, or a number.

Everything that depends on it is here: the number of outputs of a model, labels as arrays and the value of a missing
label, what a row of logits predicts, which metrics apply. Code elsewhere asks a `Target` and never looks
at the number of labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_CLASS = -100  # PyTorch's ignore_index: a class label that is missing
CLASSIFICATION_METRICS = ("accuracy", "f1", "matthews")
REGRESSION_METRICS = ("pearson", "spearman")


@dataclass(frozen=True)
class Target:
    """One of `labels`, in the order of a model's outputs; a number where `labels` is empty."""

    labels: tuple[str, ...] = ()

    @classmethod
    def of_outputs(cls, id2label: Mapping[Any, str]) -> Target:
        """The target of a saved model: `id2label` of its configuration; a single output is a number."""
        names = [str(name) for _, name in sorted(id2label.items(), key=lambda item: int(item[0]))]
        return cls(tuple(names) if len(names) > 1 else ())

    @property
    def regression(self) -> bool:
        """Whether a number is predicted."""
        return not self.labels

    @property
    def outputs(self) -> int:
        """Outputs of a model: one per class, or one number."""
        return len(self.labels) or 1

    @property
    def missing(self) -> float:
        """The value of a missing label: `NO_CLASS` among class indices, nan among numbers."""
        return np.nan if self.regression else NO_CLASS

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that apply, the default first."""
        return REGRESSION_METRICS if self.regression else CLASSIFICATION_METRICS

    def encode(self, values: Sequence[Any]) -> NDArray[Any]:  # (n,) int64 class indices or float32 numbers
        """Labels as an array; a value is a class name, a class index, a number, or None where it is missing."""
        if self.regression:
            return np.array([self.missing if value is None else float(value) for value in values], dtype=np.float32)
        index_of = {label: index for index, label in enumerate(self.labels)}
        indices = [NO_CLASS if value is None else index_of.get(value, value) for value in values]
        return np.array([int(index) for index in indices], dtype=np.int64)

    def decode(self, value: float | None) -> str | float | None:
        """The class name of an index; a number, or None, as it is."""
        return value if self.regression or value is None else self.labels[int(value)]

    def predictions(self, logits: NDArray[Any]) -> NDArray[Any]:  # (n, outputs) → (n,)
        """The prediction of each row of logits: the index of the largest, or the number itself."""
        return np.asarray(logits[:, 0] if self.regression else logits.argmax(axis=1))


def present(labels: NDArray[Any]) -> NDArray[np.bool_]:  # (n,) as `Target.encode` gives them
    """Which labels are not missing."""
    return np.asarray(~np.isnan(labels) if labels.dtype.kind == "f" else labels != NO_CLASS)
