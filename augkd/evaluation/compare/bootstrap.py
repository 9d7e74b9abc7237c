"""Every metric of every recipe and seed on thousands of bootstrap resamples of the test set at once.

A resample is a vector of counts: how often each example was drawn. Accuracy, F1 and the Matthews correlation need only
sums of those counts, Pearson their moments, Spearman and mAP their running totals, so a block of resamples is a matrix
product instead of a loop over scikit-learn. All recipes and seeds see the same resamples (Koehn 2004, "Statistical
Significance Tests for Machine Translation Evaluation"): an example that is hard for all of them cancels out of a
difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.errors import DataError, did_you_mean

Values = NDArray[Any]
Floats = NDArray[np.float64]

RESAMPLES = 2000
_BLOCK = 4_000_000  # counts in memory at once: 32 MB


def bootstrap_scores(
    metric: str,
    predicted: Values,  # (models, n) classes or numbers; (models, n, labels) as `Target.judged` gives several labels
    true: Values,  # (n,), or (n, labels)
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Floats:  # (resamples, models)
    """`metric` of every model on `resamples` resamples of the n examples, the same for all models.

    The values are those of `augkd.evaluation.metrics` on the resampled rows. Raises DataError for an unknown metric.
    """
    if metric not in RESAMPLED_METRICS:
        raise DataError(f"there is no metric '{metric}' to resample{did_you_mean(metric, RESAMPLED_METRICS)}")
    rng = np.random.default_rng(seed)
    measure = RESAMPLED_METRICS[metric]
    blocks = [measure(counts, predicted, true) for counts in resample_counts(len(true), resamples, rng)]
    return np.concatenate(blocks)


def resample_counts(examples: int, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Blocks (rows, examples) of counts, `resamples` rows in all: how often each example was drawn."""
    size = max(1, _BLOCK // examples)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = rng.integers(0, examples, size=(rows, examples)) + np.arange(rows)[:, None] * examples
        yield np.bincount(drawn.ravel(), minlength=rows * examples).reshape(rows, examples).astype(np.float64)


# ---- metrics: (counts (resamples, n), predicted (models, n), true (n,)) -> (resamples, models) ----


def _accuracy(counts: Floats, predicted: Values, true: Values) -> Floats:
    correct: Floats = _sums(counts, (predicted == true).astype(np.float64).T) / counts.sum(axis=1)[:, None]
    return correct


def _f1(counts: Floats, predicted: Values, true: Values) -> Floats:
    classes = np.arange(1 + max(int(true.max()), int(predicted.max()), 1))
    true_counts = _sums(counts, _one_hot(true, classes))
    columns = [_f1_of_model(counts, true_counts, row, true, classes) for row in predicted]
    return np.stack(columns, axis=1)


def _f1_of_model(counts: Floats, true_counts: Floats, row: Values, true: Values, classes: Values) -> Floats:
    predicted = _one_hot(row, classes)
    denominator = true_counts + _sums(counts, predicted)
    correct = _sums(counts, predicted * (row == true)[:, None])
    f1 = np.divide(2 * correct, denominator, out=np.zeros_like(correct), where=denominator > 0)  # (resamples, classes)
    # As `metrics.f1` on the resample: F1 of the second class of two, else the mean over classes present.
    macro = f1.sum(axis=1) / (denominator > 0).sum(axis=1)
    return np.where(denominator[:, 2:].sum(axis=1) == 0, f1[:, 1], macro)


def _matthews(counts: Floats, predicted: Values, true: Values) -> Floats:
    classes = np.arange(1 + max(int(true.max()), int(predicted.max())))
    true_counts, total = _sums(counts, _one_hot(true, classes)), counts.sum(axis=1)
    correct = _sums(counts, (predicted == true).astype(np.float64).T)
    columns = []
    for model, row in enumerate(predicted):
        predicted_counts = _sums(counts, _one_hot(row, classes))
        covariance = correct[:, model] * total - (true_counts * predicted_counts).sum(axis=1)
        variances = (total**2 - (true_counts**2).sum(axis=1)) * (total**2 - (predicted_counts**2).sum(axis=1))
        zeros = np.zeros_like(covariance)
        columns.append(np.divide(covariance, np.sqrt(variances), out=zeros, where=variances > 0))
    return np.stack(columns, axis=1)


def _pearson(counts: Floats, predicted: Values, true: Values) -> Floats:
    target = np.broadcast_to(true.astype(np.float64), counts.shape)
    rows = [np.broadcast_to(row.astype(np.float64), counts.shape) for row in predicted]
    return np.stack([_correlation(counts, row, target) for row in rows], axis=1)


def _spearman(counts: Floats, predicted: Values, true: Values) -> Floats:
    target = _ranks(counts, true)
    return np.stack([_correlation(counts, _ranks(counts, row), target) for row in predicted], axis=1)


def _micro_f1(counts: Floats, predicted: Values, true: Values) -> Floats:
    real = (true > 0).sum(axis=1).astype(np.float64)  # (n,)
    hits = ((predicted > 0) & (true > 0)).sum(axis=2).astype(np.float64).T  # (n, models)
    chosen = (predicted > 0).sum(axis=2).astype(np.float64).T
    f1: Floats = 2 * _sums(counts, hits) / np.maximum(1, _sums(counts, chosen + real[:, None]))
    return f1


def _macro_f1(counts: Floats, predicted: Values, true: Values) -> Floats:
    real = _sums(counts, (true > 0).astype(np.float64))  # (resamples, labels)
    columns = []
    for row in predicted:
        hits = _sums(counts, ((row > 0) & (true > 0)).astype(np.float64))
        either = real + _sums(counts, (row > 0).astype(np.float64))
        columns.append((2 * hits / np.maximum(1, either)).mean(axis=1))
    return np.stack(columns, axis=1)


def _mean_average_precision(counts: Floats, predicted: Values, true: Values) -> Floats:
    real = true > 0
    positives = _sums(counts, real.astype(np.float64))  # (resamples, labels)
    columns = []
    for row in predicted:
        totals = np.zeros(len(counts))
        for place in range(true.shape[1]):
            totals += _average_precision(counts, row[:, place], real[:, place])
        columns.append(totals / np.maximum(1, (positives > 0).sum(axis=1)))
    return np.stack(columns, axis=1)


def _average_precision(counts: Floats, scores: Values, real: Values) -> Floats:  # (resamples,)
    """Σ (recall gained) · precision over the distinct scores, from the highest; 0 without a positive."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])  # the last text of each distinct score
    ranked = counts[:, order]
    hits = np.cumsum(ranked * real[order], axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0)
    precision = hits / np.maximum(1, np.cumsum(ranked, axis=1)[:, ends])
    total: Floats = (gained * precision).sum(axis=1) / np.maximum(1, hits[:, -1])
    return total


RESAMPLED_METRICS: dict[str, Callable[[Floats, Values, Values], Floats]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "micro_f1": _micro_f1,
    "macro_f1": _macro_f1,
    "mAP": _mean_average_precision,
    "pearson": _pearson,
    "spearman": _spearman,
}


def _sums(counts: Floats, columns: Floats) -> Floats:  # (resamples, n) × (n, columns); exact: integers below 2^53
    sums: Floats = counts @ columns
    return sums


def _one_hot(values: Values, classes: Values) -> Floats:  # (n, classes)
    one_hot: Floats = (values[:, None] == classes).astype(np.float64)
    return one_hot


def _ranks(counts: Floats, values: Values) -> Floats:  # (resamples, n)
    """The rank of every example's value within each resample; ties share their mean rank."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    tied = np.add.reduceat(counts[:, order], starts, axis=1)  # (resamples, distinct values)
    mean_rank = np.cumsum(tied, axis=1) - tied + (tied + 1) / 2
    ranks = np.empty_like(counts)
    ranks[:, order] = np.repeat(mean_rank, np.diff(np.r_[starts, len(values)]), axis=1)
    return ranks


def _correlation(counts: Floats, left: Floats, right: Floats) -> Floats:  # (resamples,)
    """Pearson's r of each resample; 0 where a side is constant."""
    total = counts.sum(axis=1)
    # 1e-12 of a value, squared: the rounding error that remains of a constant side when its mean is subtracted.
    limits = [1e-24 * total * np.abs(side).max() ** 2 for side in (left, right)]
    left, right = (side - ((counts * side).sum(axis=1) / total)[:, None] for side in (left, right))
    covariance = (counts * left * right).sum(axis=1)
    squares = [(counts * side**2).sum(axis=1) for side in (left, right)]
    varied = (squares[0] > limits[0]) & (squares[1] > limits[1])
    zeros = np.zeros_like(covariance)
    correlation: Floats = np.divide(covariance, np.sqrt(squares[0] * squares[1]), out=zeros, where=varied)
    return correlation
