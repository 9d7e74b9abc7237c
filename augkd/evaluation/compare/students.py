"""Predictions of all students of a comparison as one array, and their scores on bootstrap resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.errors import WorkspaceError
from augkd.evaluation.compare.bootstrap import bootstrap_scores
from augkd.evaluation.metrics import METRICS
from augkd.evaluation.predictions import FILE, read_predictions


@dataclass(frozen=True)
class StudentPredictions:
    """Predictions of recipes × seeds on the labelled examples of one split."""

    recipes: tuple[str, ...]
    students: NDArray[Any]  # (recipes, seeds, n) as `Target.judged` gives them: classes, numbers, or (…, n, labels)
    labels: NDArray[Any]  # (n,) as `Target.encode` gives them
    teacher: NDArray[Any] | None  # (n,) or (n, labels); None where its outputs are not known for every example


@dataclass(frozen=True)
class StudentScores:
    """A metric of recipes × seeds, on the examples as they are and on resamples of them."""

    scores: NDArray[np.float64]  # (recipes, seeds)
    resampled: NDArray[np.float64]  # (resamples, recipes, seeds)


def read_students(students: Mapping[str, Sequence[Path]], split: str) -> StudentPredictions | None:
    """Predictions of the recipes whose students, one per seed, all recorded them; None when there are no such recipes.

    `split` is `validation` or `test`. Raises WorkspaceError for students that were evaluated on different examples.
    """
    read = {name: [read_predictions(folder, split) for folder in folders] for name, folders in students.items()}
    complete = {name: [one for one in row if one is not None] for name, row in read.items() if None not in row}
    if not complete:
        return None
    first = next(iter(complete.values()))[0]
    for name, predictions in complete.items():
        for folder, one in zip(students[name], predictions, strict=True):
            if not np.array_equal(one.labels, first.labels):
                raise WorkspaceError(f"{folder / FILE} has other {split} examples; remove {folder} and run again")
    return StudentPredictions(
        tuple(complete),
        np.array([[one.target.judged(one.student) for one in row] for row in complete.values()]),
        first.labels,
        None if first.teacher is None else first.teacher_target.judged(first.teacher),
    )


def measure(
    metric: str,
    students: NDArray[Any],  # (recipes, seeds, n), or (recipes, seeds, n, labels)
    labels: NDArray[Any],  # (n,), or (n, labels)
    resamples: int,
    seed: int = 0,
) -> StudentScores:
    """Scores of every student, on the examples and on `resamples` bootstrap resamples of them."""
    flat, shape = students.reshape(-1, *students.shape[2:]), students.shape[:2]
    scores = np.array([METRICS[metric](predicted, labels) for predicted in flat])
    resampled = bootstrap_scores(metric, flat, labels, resamples=resamples, seed=seed)
    return StudentScores(scores.reshape(shape), resampled.reshape(resamples, *shape))
