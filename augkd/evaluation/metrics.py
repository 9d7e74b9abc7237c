"""The task's metric, and how precisely a test set of this size measures it.

Scores are those of scikit-learn and SciPy. The interval is a percentile bootstrap over examples.
Which metrics apply to a task is known to its `Target`, and so is what they compare with the labels: of several labels
the logits less those of the thresholds (`Target.judged`), which are above 0 where a label is predicted and rank texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.data.target import Target
from augkd.errors import DataError, did_you_mean

Values = NDArray[Any]
Metric = Callable[[Values, Values], float]  # (predicted (n,) or (n, labels), true) → score


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


def micro_f1(predicted: Values, true: Values) -> float:
    """F1 over all decisions, of every label of every text; 0 where no label is predicted and none is true."""
    chosen, real = predicted > 0, true > 0
    return float(2 * (chosen & real).sum() / max(1, chosen.sum() + real.sum()))


def macro_f1(predicted: Values, true: Values) -> float:
    """Mean of the labels' F1; 0 for a label that is neither predicted nor true."""
    chosen, real = predicted > 0, true > 0
    either = chosen.sum(axis=0) + real.sum(axis=0)
    return float((2 * (chosen & real).sum(axis=0) / np.maximum(1, either)).mean())


def mean_average_precision(predicted: Values, true: Values) -> float:
    """Mean over the labels that some text has of their average precision: thresholds do not matter; 0 without any."""
    from sklearn import metrics

    real = true > 0
    places = np.flatnonzero(real.any(axis=0))
    if not len(places):
        return 0.0
    return float(np.mean([metrics.average_precision_score(real[:, place], predicted[:, place]) for place in places]))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "micro_f1": micro_f1,
    "macro_f1": macro_f1,
    "mAP": mean_average_precision,
    "pearson": pearson,
    "spearman": spearman,
}


_KINDS = {
    "regression": "regression",
    "single_label_classification": "classification",
    "multi_label_classification": "several labels per text",
}


def metric_of(name: str, target: Target) -> Metric:
    """The metric of that name; raises DataError when it does not apply to the target."""
    if name not in target.metrics:
        raise DataError(
            f"metric '{name}' does not apply to {_KINDS[target.problem_type]}{did_you_mean(name, target.metrics)}"
        )
    return METRICS[name]


def score(
    metric: str,
    target: Target,
    logits: NDArray[np.float32],  # (n, outputs)
    labels: Sequence[Any] | Values,  # (n,) as in an `Example` or as `Target.encode` gives them, none missing
) -> float:
    """The metric of what the logits predict."""
    return metric_of(metric, target)(target.judged(logits), target.encoded(labels))


def interval(
    metric: str,
    target: Target,
    logits: NDArray[np.float32],  # (n, outputs)
    labels: Sequence[Any] | Values,  # (n,) as in an `Example` or as `Target.encode` gives them, none missing
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the metric over examples."""
    predicted, true = target.judged(logits), target.encoded(labels)
    measure = metric_of(metric, target)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(true), size=(resamples, len(true)))
    scores = [measure(predicted[row], true[row]) for row in rows]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)
