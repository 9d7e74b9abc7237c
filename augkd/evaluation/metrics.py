"""What predictions are worth: the task's metric, and how far the test set's size lets it be trusted.

The figures are scikit-learn's and SciPy's; the interval is a percentile bootstrap over examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics

from augkd.errors import DataError, did_you_mean

Values = NDArray[Any]


def accuracy(predicted: Values, true: Values) -> float:
    """Share of examples whose class is right."""
    return float(metrics.accuracy_score(true, predicted))


def f1(predicted: Values, true: Values) -> float:
    """F1 of the second class of two (GLUE's convention for MRPC); macro F1 for more classes."""
    average = "binary" if max(true.max(), predicted.max()) <= 1 else "macro"
    return float(metrics.f1_score(true, predicted, average=average, zero_division=0.0))


def matthews(predicted: Values, true: Values) -> float:
    """Matthews correlation (CoLA)."""
    return float(metrics.matthews_corrcoef(true, predicted))


def pearson(predicted: Values, true: Values) -> float:
    """Pearson correlation; 0 when either side is constant."""
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return 0.0
    return float(stats.pearsonr(predicted, true).statistic)


def spearman(predicted: Values, true: Values) -> float:
    """Spearman rank correlation; 0 when either side is constant."""
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return 0.0
    return float(stats.spearmanr(predicted, true).statistic)


CLASSIFICATION: dict[str, Callable[[Values, Values], float]] = {"accuracy": accuracy, "f1": f1, "matthews": matthews}
REGRESSION: dict[str, Callable[[Values, Values], float]] = {"pearson": pearson, "spearman": spearman}


def metric_of(name: str, regression: bool) -> Callable[[Values, Values], float]:
    """The metric of that name; raises DataError when it does not fit the kind of task."""
    known = REGRESSION if regression else CLASSIFICATION
    if name not in known:
        kind = "regression" if regression else "classification"
        raise DataError(f"metric '{name}' is not one for {kind}{did_you_mean(name, known)}")
    return known[name]


def score(
    name: str,
    logits: NDArray[np.float32],  # (n, outputs)
    labels: Sequence[Any],  # (n,) class index or target
) -> float:
    """The metric `name` of predictions made from logits: the largest one, or the single one itself."""
    predicted, true = _predicted(logits), np.asarray(labels)
    return metric_of(name, logits.shape[1] == 1)(predicted, true)


def interval(
    name: str, logits: NDArray[np.float32], labels: Sequence[Any], *, seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the metric over examples."""
    predicted, true = _predicted(logits), np.asarray(labels)
    measure = metric_of(name, logits.shape[1] == 1)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(true), size=(draws, len(true)))
    values = [measure(predicted[pick], true[pick]) for pick in picks]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _predicted(logits: NDArray[np.float32]) -> Values:
    return logits[:, 0] if logits.shape[1] == 1 else logits.argmax(axis=1)
