"""Every metric of every recipe and seed on thousands of resampled test sets at once.

A resample is a vector of counts: how often each example was drawn. Accuracy, F1 and Matthews correlation need sums of
those counts alone, Pearson their moments and Spearman their running totals, so that a block of resamples is a matrix
product in place of a loop over scikit-learn. All recipes and seeds see the same resamples (Koehn 2004, "Statistical
Significance Tests for Machine Translation Evaluation"): what an example does to all of them drops out of a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.errors import DataError, did_you_mean

Values = NDArray[Any]
Floats = NDArray[np.float64]

DRAWS = 2000
_BLOCK = 4_000_000  # counts held at once: 32 MB


def replicates(
    metric: str,
    predicted: Values,  # (models, n) classes, or numbers for regression
    true: Values,  # (n,)
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Floats:  # (draws, models)
    """`metric` of every model on `draws` resamples of the n examples, the same for all models.

    The values are those of `augkd.evaluation.metrics` on the resampled rows. Raises DataError for an unknown metric.
    """
    if metric not in METRICS:
        raise DataError(f"there is no metric '{metric}' to resample{did_you_mean(metric, METRICS)}")
    rng = np.random.default_rng(seed)
    measure = METRICS[metric]
    blocks = [measure(counts, predicted, true) for counts in resamples(len(true), draws, rng)]
    return np.concatenate(blocks)


def resamples(examples: int, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Blocks (rows, examples) of counts, `draws` rows in all: each row says how often every example was drawn."""
    size = max(1, _BLOCK // examples)
    for start in range(0, draws, size):
        rows = min(size, draws - start)
        picks = rng.integers(0, examples, size=(rows, examples)) + np.arange(rows)[:, None] * examples
        yield np.bincount(picks.ravel(), minlength=rows * examples).reshape(rows, examples).astype(np.float64)


# ---- metrics: (counts (draws, n), predicted (models, n), true (n,)) -> (draws, models) ----


def _accuracy(counts: Floats, predicted: Values, true: Values) -> Floats:
    right: Floats = _sums(counts, (predicted == true).astype(np.float64).T) / counts.sum(axis=1)[:, None]
    return right


def _f1(counts: Floats, predicted: Values, true: Values) -> Floats:
    classes = np.arange(1 + max(int(true.max()), int(predicted.max()), 1))
    in_true = _sums(counts, _one_hot(true, classes))
    columns = [_f1_of_one(counts, in_true, row, true, classes) for row in predicted]
    return np.stack(columns, axis=1)


def _f1_of_one(counts: Floats, in_true: Floats, row: Values, true: Values, classes: Values) -> Floats:
    said = _one_hot(row, classes)
    in_either = in_true + _sums(counts, said)
    right = _sums(counts, said * (row == true)[:, None])
    each = np.divide(2 * right, in_either, out=np.zeros_like(right), where=in_either > 0)
    # As `metrics.f1` on the resample: of the second class where there are no others, else the mean over those seen.
    macro = each.sum(axis=1) / (in_either > 0).sum(axis=1)
    return np.where(in_either[:, 2:].sum(axis=1) == 0, each[:, 1], macro)


def _matthews(counts: Floats, predicted: Values, true: Values) -> Floats:
    classes = np.arange(1 + max(int(true.max()), int(predicted.max())))
    in_true, total = _sums(counts, _one_hot(true, classes)), counts.sum(axis=1)
    right = _sums(counts, (predicted == true).astype(np.float64).T)
    columns = []
    for model, row in enumerate(predicted):
        said = _sums(counts, _one_hot(row, classes))
        above = right[:, model] * total - (in_true * said).sum(axis=1)
        spread = (total**2 - (in_true**2).sum(axis=1)) * (total**2 - (said**2).sum(axis=1))
        columns.append(np.divide(above, np.sqrt(spread), out=np.zeros_like(above), where=spread > 0))
    return np.stack(columns, axis=1)


def _pearson(counts: Floats, predicted: Values, true: Values) -> Floats:
    target = np.broadcast_to(true.astype(np.float64), counts.shape)
    rows = [np.broadcast_to(row.astype(np.float64), counts.shape) for row in predicted]
    return np.stack([_correlation(counts, row, target) for row in rows], axis=1)


def _spearman(counts: Floats, predicted: Values, true: Values) -> Floats:
    target = _ranks(counts, true)
    return np.stack([_correlation(counts, _ranks(counts, row), target) for row in predicted], axis=1)


METRICS: dict[str, Callable[[Floats, Values, Values], Floats]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}


def _sums(counts: Floats, columns: Floats) -> Floats:  # (draws, n) × (n, columns); exact: whole numbers below 2^53
    result: Floats = counts @ columns
    return result


def _one_hot(values: Values, classes: Values) -> Floats:  # (n, classes)
    found: Floats = (values[:, None] == classes).astype(np.float64)
    return found


def _ranks(counts: Floats, values: Values) -> Floats:  # (draws, n)
    """The rank of every example's value within each resample, equal ones sharing the mean of theirs."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    held = np.add.reduceat(counts[:, order], starts, axis=1)  # (draws, distinct values)
    middle = np.cumsum(held, axis=1) - held + (held + 1) / 2
    ranks = np.empty_like(counts)
    ranks[:, order] = np.repeat(middle, np.diff(np.r_[starts, len(values)]), axis=1)
    return ranks


def _correlation(counts: Floats, left: Floats, right: Floats) -> Floats:  # (draws,)
    """Pearson's r of each resample; 0 where a side is constant."""
    total = counts.sum(axis=1)
    # 1e-12 of a value, squared: what rounding leaves of a constant side when its mean is taken off.
    limits = [1e-24 * total * np.abs(side).max() ** 2 for side in (left, right)]
    left, right = (side - ((counts * side).sum(axis=1) / total)[:, None] for side in (left, right))
    above = (counts * left * right).sum(axis=1)
    squares = [(counts * side**2).sum(axis=1) for side in (left, right)]
    varied = (squares[0] > limits[0]) & (squares[1] > limits[1])
    found: Floats = np.divide(above, np.sqrt(squares[0] * squares[1]), out=np.zeros_like(above), where=varied)
    return found
