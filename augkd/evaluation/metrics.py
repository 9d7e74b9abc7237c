"""The task's metric, and how precisely a test set of this size measures it.

Scores are those of scikit-learn and SciPy. The interval is a percentile bootstrap over examples.
Which metrics apply to a task is known to its `Target`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.data.target import Target
from augkd.errors import DataError, did_you_mean

Values = NDArray[Any]
Metric = Callable[[Values, Values], float]  # (predicted (n,), true (n,)) → score


def accuracy(predicted: Values, true: Values) -> float:
    """Share of examples whose class is right."""
    return float(np.mean(predicted == true))


def f1(predicted: Values, true: Values) -> float:
    """F1 of the second of two classes (GLUE's convention for MRPC); macro F1 with more classes."""
    from sklearn import metrics  # a second to import, with SciPy

    average = "binary" if max(true.max(), predicted.max()) <= 1 else "macro"
    return float(metrics.f1_score(true, predicted, average=average, zero_division=0.0))


def matthews(predicted: Values, true: Values) -> float:
    """Matthews correlation coefficient (CoLA)."""
    from sklearn import metrics

    return float(metrics.matthews_corrcoef(true, predicted))


def pearson(predicted: Values, true: Values) -> float:
    """Pearson correlation; 0 when either side is constant."""
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return 0.0
    from scipy import stats

    return float(stats.pearsonr(predicted, true).statistic)


def spearman(predicted: Values, true: Values) -> float:
    """Spearman rank correlation; 0 when either side is constant."""
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return 0.0
    from scipy import stats

    return float(stats.spearmanr(predicted, true).statistic)


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def metric_of(name: str, target: Target) -> Metric:
    """The metric of that name; raises DataError when it does not apply to the target."""
    if name not in target.metrics:
        kind = "regression" if target.regression else "classification"
        raise DataError(f"metric '{name}' does not apply to {kind}{did_you_mean(name, target.metrics)}")
    return METRICS[name]


def score(
    metric: str,
    target: Target,
    logits: NDArray[np.float32],  # (n, outputs)
    labels: Sequence[Any] | Values,  # (n,) class indices or numbers, none missing
) -> float:
    """The metric of what the logits predict."""
    return metric_of(metric, target)(target.predictions(logits), np.asarray(labels))


def interval(
    metric: str,
    target: Target,
    logits: NDArray[np.float32],  # (n, outputs)
    labels: Sequence[Any] | Values,  # (n,) class indices or numbers, none missing
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the metric over examples."""
    predicted, true = target.predictions(logits), np.asarray(labels)
    measure = metric_of(metric, target)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(true), size=(resamples, len(true)))
    scores = [measure(predicted[row], true[row]) for row in rows]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)
