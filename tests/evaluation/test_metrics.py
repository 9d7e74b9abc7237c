"""Metrics equal their closed forms, and the interval narrows as 1/√n."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from augkd.data.target import CLASSIFICATION_METRICS, MULTI_LABEL_METRICS, REGRESSION_METRICS, Target
from augkd.errors import DataError
from augkd.evaluation.metrics import METRICS, f1, interval, metric_of, score

CLASSES = Target(("a", "b", "c"))
NUMBER = Target()


def one_hot(classes: list[int], of: int) -> np.ndarray:
    return np.eye(of, dtype=np.float32)[classes]


# 3 true positives, 1 false positive, 2 false negatives, 4 true negatives
PREDICTED = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
TRUE = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]


def test_accuracy_is_the_share_of_right_predictions() -> None:
    assert score("accuracy", CLASSES, one_hot(PREDICTED, 2), TRUE) == pytest.approx(0.7)


def test_f1_of_two_classes_is_the_f1_of_the_second() -> None:
    assert score("f1", CLASSES, one_hot(PREDICTED, 2), TRUE) == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    swapped = score("f1", CLASSES, one_hot([1 - p for p in PREDICTED], 2), [1 - t for t in TRUE])
    assert swapped == pytest.approx(2 * 4 / (2 * 4 + 2 + 1))


def test_f1_of_three_classes_is_the_mean_over_classes() -> None:
    true, predicted = [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0]
    each = [2 * 1 / (2 * 1 + 1 + 1), 2 * 2 / (2 * 2 + 1 + 0), 2 * 1 / (2 * 1 + 0 + 1)]
    assert score("f1", CLASSES, one_hot(predicted, 3), true) == pytest.approx(sum(each) / 3)


def test_f1_of_a_class_never_predicted_is_zero() -> None:
    assert f1(np.zeros(4, int), np.array([1, 1, 0, 0])) == 0


def test_matthews_is_the_formula() -> None:
    expected = (3 * 4 - 1 * 2) / math.sqrt((3 + 1) * (3 + 2) * (4 + 1) * (4 + 2))
    assert score("matthews", CLASSES, one_hot(PREDICTED, 2), TRUE) == pytest.approx(expected)
    assert score("matthews", CLASSES, one_hot([1] * 10, 2), TRUE) == 0  # a constant prediction


def test_pearson_is_one_for_a_line_and_spearman_for_any_rising_curve() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)
    assert score("pearson", NUMBER, x[:, None], (3 * x + 1).tolist()) == pytest.approx(1)
    assert score("spearman", NUMBER, np.exp(x)[:, None], x.tolist()) == pytest.approx(1)
    assert score("pearson", NUMBER, np.exp(x)[:, None], x.tolist()) < 0.95
    assert score("spearman", NUMBER, -x[:, None], x.tolist()) == pytest.approx(-1)


def test_pearson_and_spearman_equal_values_computed_by_hand() -> None:
    predicted, true = np.array([[1.0], [2.0], [3.0]], dtype=np.float32), [1.0, 3.0, 2.0]
    assert score("pearson", NUMBER, predicted, true) == pytest.approx(0.5)  # Σ(-1·-1 + 0·1 + 1·0) / (√2·√2)
    assert score("spearman", NUMBER, predicted, true) == pytest.approx(1 - 6 * 2 / (3 * 8))


@pytest.mark.parametrize("name", REGRESSION_METRICS)
def test_correlation_with_a_constant_is_zero_and_not_nan(name: str) -> None:
    assert score(name, NUMBER, np.ones((3, 1), np.float32), [1.0, 2.0, 3.0]) == 0
    assert score(name, NUMBER, np.array([[1.0], [2.0]], np.float32), [1.0, 1.0]) == 0


@pytest.mark.parametrize("name", CLASSIFICATION_METRICS)
def test_a_perfect_classifier_scores_one(name: str) -> None:
    assert score(name, CLASSES, one_hot([0, 1, 2, 1], 3), [0, 1, 2, 1]) == 1


def test_a_metric_for_the_other_kind_of_task_is_an_error_and_a_typo_gets_a_suggestion() -> None:
    with pytest.raises(DataError, match="metric 'accuracy' does not apply to regression"):
        metric_of("accuracy", NUMBER)
    with pytest.raises(DataError, match="'pearson' does not apply to classification"):
        metric_of("pearson", CLASSES)
    with pytest.raises(DataError, match="did you mean 'accuracy'"):
        metric_of("acuracy", CLASSES)


def test_every_metric_of_a_target_is_defined_and_no_other() -> None:
    assert set(METRICS) == {*CLASSIFICATION_METRICS, *MULTI_LABEL_METRICS, *REGRESSION_METRICS}


def test_the_interval_is_the_binomial_interval_and_narrows_with_the_root_of_n() -> None:
    widths = []
    for n in (100, 1600):
        labels = [int(i % 5 != 0) for i in range(n)]  # accuracy 0.8 of the constant prediction 1
        low, high = interval("accuracy", CLASSES, one_hot([1] * n, 2), labels, resamples=2000)
        sd = math.sqrt(0.8 * 0.2 / n)
        assert low == pytest.approx(0.8 - 1.96 * sd, abs=0.25 * sd)
        assert high == pytest.approx(0.8 + 1.96 * sd, abs=0.25 * sd)
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.1)


def test_the_interval_repeats_with_its_seed_and_changes_with_another() -> None:
    logits, labels = one_hot(PREDICTED * 7, 2), TRUE * 7
    first, again, other = (interval("f1", CLASSES, logits, labels, seed=seed, resamples=50) for seed in (1, 1, 2))
    assert first == again != other


def test_the_interval_of_a_perfect_classifier_has_no_width() -> None:
    assert interval("accuracy", CLASSES, one_hot([0, 1] * 10, 2), [0, 1] * 10) == (1, 1)


SEVERAL = Target(("a", "b", "c", "d"), multi_label=True)


def several(seed: int, n: int = 40) -> tuple[Any, Any]:
    """Logits with ties, and labels of which the last occurs nowhere."""
    rng = np.random.default_rng(seed)
    true = (rng.random((n, 4)) < [0.5, 0.2, 0.1, 0.0]).astype(np.float32)
    return np.round(rng.normal(size=(n, 4)) + true, 1).astype(np.float32), true


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_several_labels_equal_scikit_learn(seed: int) -> None:
    logits, true = several(seed)
    chosen = logits > 0
    for name, average in (("micro_f1", "micro"), ("macro_f1", "macro")):
        wanted = sklearn.metrics.f1_score(true, chosen, average=average, zero_division=0.0)
        assert score(name, SEVERAL, logits, true) == pytest.approx(wanted)
    some = true.any(axis=0)  # scikit-learn gives 0 for a label that no text has, which says nothing of the model
    assert not some[3]
    wanted = sklearn.metrics.average_precision_score(true[:, some], logits[:, some], average="macro")
    assert score("mAP", SEVERAL, logits, true) == pytest.approx(wanted)


def test_thresholds_decide_the_f1_and_leave_the_mean_average_precision_alone() -> None:
    logits, true = several(0)
    moved = Target(SEVERAL.labels, True, thresholds=(0.1, 0.2, 0.3, 0.9))
    limits = np.log(np.array(moved.thresholds) / (1 - np.array(moved.thresholds)))
    wanted = sklearn.metrics.f1_score(true, logits > limits, average="micro")
    assert score("micro_f1", moved, logits, true) == pytest.approx(wanted)
    assert wanted != score("micro_f1", SEVERAL, logits, true)
    assert score("mAP", moved, logits, true) == pytest.approx(score("mAP", SEVERAL, logits, true), abs=1e-6)


def test_labels_of_examples_are_scored_as_their_array() -> None:
    logits, true = several(1)
    lists = [tuple(np.flatnonzero(row).tolist()) for row in true]
    assert score("macro_f1", SEVERAL, logits, lists) == score("macro_f1", SEVERAL, logits, true)
    low, high = interval("micro_f1", SEVERAL, logits, lists)
    assert low < score("micro_f1", SEVERAL, logits, lists) < high
