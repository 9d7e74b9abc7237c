"""What finished students and their teacher said of a task's evaluation examples, read back from student folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from augkd.errors import WorkspaceError

FILE = "predictions.safetensors"


@dataclass(frozen=True)
class Predictions:
    """One split's labelled examples: what is true, and what every recipe's students say, in numbers for regression."""

    recipes: tuple[str, ...]
    said: NDArray[Any]  # (recipes, seeds, n) class or number
    true: NDArray[Any]  # (n,)
    teacher: NDArray[Any] | None  # (n,); None where it was not asked for all of them


def read_predictions(students: Mapping[str, Sequence[Path]], split: str) -> Predictions | None:
    """Of the recipes whose students (one a seed) all have the file; None when no recipe has, or nothing is labelled.

    `split` is `validation` or `test`. Raises WorkspaceError for students that were not measured on the same examples.
    """
    whole = {name: folders for name, folders in students.items() if all((f / FILE).exists() for f in folders)}
    if not whole:
        return None
    held = {name: [_read(folder / FILE, split) for folder in folders] for name, folders in whole.items()}
    first = next(iter(held.values()))[0]
    labels = first[f"{split}_labels"]
    for name, tensors in held.items():
        for folder, one in zip(whole[name], tensors, strict=True):
            if not np.array_equal(one[f"{split}_labels"], labels, equal_nan=labels.dtype.kind == "f"):
                raise WorkspaceError(f"{folder / FILE} is of other {split} examples; remove {folder} and run again")
    known = ~np.isnan(labels) if labels.dtype.kind == "f" else labels >= 0
    if not known.any():
        return None
    said = [[_predicted(one[split])[known] for one in tensors] for tensors in held.values()]
    teacher = first[f"teacher_{split}"][known]
    given = None if np.isnan(teacher).any() else _predicted(teacher)
    return Predictions(tuple(held), np.array(said), labels[known], given)


def _read(path: Path, split: str) -> dict[str, NDArray[Any]]:
    """The three tensors of a split."""
    try:
        tensors = load_file(path)
        return {name: tensors[name] for name in (split, f"{split}_labels", f"teacher_{split}")}
    except (OSError, SafetensorError, KeyError) as exc:
        raise WorkspaceError(f"{path} does not hold predictions ({exc}); remove its folder and run again") from exc


def _predicted(logits: NDArray[np.float32]) -> NDArray[Any]:  # (n, outputs) -> (n,)
    return logits[:, 0] if logits.shape[1] == 1 else logits.argmax(axis=1)
