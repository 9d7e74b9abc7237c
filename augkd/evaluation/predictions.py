"""Predictions of a finished student and its teacher on a task's evaluation examples, read from the student's folder.

With them, comparisons and reports need neither model nor data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from augkd.data.target import Target, present
from augkd.errors import WorkspaceError

FILE = "predictions.safetensors"


@dataclass(frozen=True)
class Predictions:
    """Logits on the labelled examples of one split, in the task's order."""

    split: str
    labels: NDArray[Any]  # (n,) class indices, or numbers for regression
    student: NDArray[np.float32]  # (n, outputs)
    teacher: NDArray[np.float32] | None  # (n, outputs); None where its outputs are not known for every example

    @property
    def target(self) -> Target:
        """What is predicted. Names of classes are not recorded, so they are numbered."""
        regression = self.labels.dtype.kind == "f"
        return Target() if regression else Target(tuple(map(str, range(self.student.shape[1]))))


def read_predictions(student: Path, split: str) -> Predictions | None:
    """Predictions on `validation` or `test` from a student's folder; None without the file or without labels.

    Raises WorkspaceError when the file is damaged.
    """
    path = student / FILE
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        labels, logits, teacher = (tensors[name] for name in (f"{split}_labels", split, f"teacher_{split}"))
    except (OSError, SafetensorError, KeyError) as exc:
        raise WorkspaceError(f"cannot read predictions from {path} ({exc}); remove {student} and run again") from exc
    labelled = present(labels)
    if not labelled.any():
        return None
    known = teacher[labelled]
    return Predictions(split, labels[labelled], logits[labelled], None if np.isnan(known).any() else known)
