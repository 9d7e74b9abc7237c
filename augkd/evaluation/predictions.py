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
from augkd.workspace.manifests import check_if_ours

FILE = "predictions.safetensors"


@dataclass(frozen=True)
class Predictions:
    """Logits on the labelled examples of one split, in the task's order."""

    split: str
    labels: NDArray[Any]  # (n,) as `Target.encode` gives them
    student: NDArray[np.float32]  # (n, outputs)
    teacher: NDArray[np.float32] | None  # (n, outputs); None where its outputs are not known for every example
    target: Target  # what the student predicts; names of classes are not recorded, so they are numbered
    teacher_target: Target  # the same with the teacher's thresholds, where several labels have any


def read_predictions(student: Path, split: str, labelled_only: bool = True) -> Predictions | None:
    """Predictions on `validation` or `test` from a student's folder; None without the file or without labels.

    Unless `labelled_only`, all examples, with missing labels and a teacher's unknown outputs (nan) among them.

    Raises WorkspaceError when the file is damaged: its checksum in the student's manifest is compared first.
    """
    path = student / FILE
    if not path.exists():
        return None
    check_if_ours(student, [FILE])
    try:
        tensors = load_file(path)
        labels, logits, teacher = (tensors[name] for name in (f"{split}_labels", split, f"teacher_{split}"))
        _check(labels, logits, teacher)
        target, teacher_target = (
            _target(labels, logits.shape[1], tensors.get(name)) for name in ("thresholds", "teacher_thresholds")
        )
    except (OSError, SafetensorError, KeyError, ValueError) as exc:
        raise WorkspaceError(f"cannot read predictions from {path} ({exc}); remove {student} and run again") from exc
    if not labelled_only:
        return Predictions(split, labels, logits, teacher, target, teacher_target)
    labelled = present(labels)
    if not labelled.any():
        return None
    known = None if np.isnan(teacher[labelled]).any() else teacher[labelled]
    return Predictions(split, labels[labelled], logits[labelled], known, target, teacher_target)


def _check(labels: NDArray[Any], logits: NDArray[Any], teacher: NDArray[Any]) -> None:
    """Raises ValueError for arrays that no student leaves together."""
    if logits.ndim != 2 or logits.shape != teacher.shape or not logits.shape[1]:
        raise ValueError(f"logits of shape {logits.shape}, the teacher's {teacher.shape}")
    rows = logits.shape if labels.ndim == 2 else logits.shape[:1]
    kinds = (np.float32,) if labels.ndim == 2 else (np.int64, np.float32)
    if labels.shape != rows or labels.dtype not in kinds:
        raise ValueError(f"labels {labels.dtype} of shape {labels.shape} for logits of shape {logits.shape}")
    if labels.dtype == np.int64 and (labels[present(labels)] >= logits.shape[1]).any():
        raise ValueError("a label without an output")


def _target(labels: NDArray[Any], outputs: int, thresholds: NDArray[np.float64] | None) -> Target:
    """What is predicted, as the array of labels shows it."""
    if labels.ndim == 2:
        return Target(_numbered(outputs), True, tuple(map(float, () if thresholds is None else thresholds)))
    return Target() if labels.dtype.kind == "f" else Target(_numbered(outputs))


def _numbered(outputs: int) -> tuple[str, ...]:
    return tuple(map(str, range(outputs)))
