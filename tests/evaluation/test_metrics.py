"""Metrics equal their closed forms, and the interval narrows as 1/√n."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augkd.errors import DataError
from augkd.evaluation.metrics import CLASSIFICATION, REGRESSION, f1, interval, metric_of, score


def one_hot(classes: list[int], of: int) -> np.ndarray:
    return np.eye(of, dtype=np.float32)[classes]


# 3 true positives, 1 false positive, 2 false negatives, 4 true negatives
PREDICTED = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
TRUE = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]


def test_accuracy_is_the_share_of_right_ones() -> None:
    assert score("accuracy", one_hot(PREDICTED, 2), TRUE) == pytest.approx(0.7)


def test_f1_of_two_classes_is_that_of_the_second() -> None:
    assert score("f1", one_hot(PREDICTED, 2), TRUE) == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    swapped = score("f1", one_hot([1 - p for p in PREDICTED], 2), [1 - t for t in TRUE])
    assert swapped == pytest.approx(2 * 4 / (2 * 4 + 2 + 1))


def test_f1_of_three_classes_is_the_mean_over_classes() -> None:
    true, predicted = [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0]
    each = [2 * 1 / (2 * 1 + 1 + 1), 2 * 2 / (2 * 2 + 1 + 0), 2 * 1 / (2 * 1 + 0 + 1)]
    assert score("f1", one_hot(predicted, 3), true) == pytest.approx(sum(each) / 3)


def test_f1_of_a_class_never_predicted_is_zero() -> None:
    assert f1(np.zeros(4, int), np.array([1, 1, 0, 0])) == 0


def test_matthews_is_the_formula() -> None:
    wanted = (3 * 4 - 1 * 2) / math.sqrt((3 + 1) * (3 + 2) * (4 + 1) * (4 + 2))
    assert score("matthews", one_hot(PREDICTED, 2), TRUE) == pytest.approx(wanted)
    assert score("matthews", one_hot([1] * 10, 2), TRUE) == 0  # a constant guess is worth nothing


def test_pearson_sees_a_line_and_spearman_any_rising_curve() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)
    assert score("pearson", x[:, None], (3 * x + 1).tolist()) == pytest.approx(1)
    assert score("spearman", np.exp(x)[:, None], x.tolist()) == pytest.approx(1)
    assert score("pearson", np.exp(x)[:, None], x.tolist()) < 0.95
    assert score("spearman", -x[:, None], x.tolist()) == pytest.approx(-1)


def test_pearson_and_spearman_equal_figures_worked_by_hand() -> None:
    predicted, true = np.array([[1.0], [2.0], [3.0]], dtype=np.float32), [1.0, 3.0, 2.0]
    assert score("pearson", predicted, true) == pytest.approx(0.5)  # Σ(-1·-1 + 0·1 + 1·0) / (√2·√2)
    assert score("spearman", predicted, true) == pytest.approx(1 - 6 * 2 / (3 * 8))


@pytest.mark.parametrize("name", REGRESSION)
def test_correlation_with_a_constant_is_zero_and_not_nan(name: str) -> None:
    assert score(name, np.ones((3, 1), np.float32), [1.0, 2.0, 3.0]) == 0
    assert score(name, np.array([[1.0], [2.0]], np.float32), [1.0, 1.0]) == 0


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_a_perfect_classifier_scores_one(name: str) -> None:
    assert score(name, one_hot([0, 1, 2, 1], 3), [0, 1, 2, 1]) == 1


def test_a_metric_of_the_wrong_kind_of_task_is_refused_and_a_typo_answered() -> None:
    with pytest.raises(DataError, match="metric 'accuracy' is not one for regression"):
        metric_of("accuracy", True)
    with pytest.raises(DataError, match="'pearson' is not one for classification"):
        metric_of("pearson", False)
    with pytest.raises(DataError, match="did you mean 'accuracy'"):
        metric_of("acuracy", False)


def test_the_interval_is_the_binomial_one_and_narrows_with_the_root_of_n() -> None:
    widths = []
    for n in (100, 1600):
        labels = [int(i % 5 != 0) for i in range(n)]  # accuracy 0.8 of the constant guess 1
        low, high = interval("accuracy", one_hot([1] * n, 2), labels, draws=2000)
        sd = math.sqrt(0.8 * 0.2 / n)
        assert low == pytest.approx(0.8 - 1.96 * sd, abs=0.25 * sd)
        assert high == pytest.approx(0.8 + 1.96 * sd, abs=0.25 * sd)
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.1)


def test_the_interval_repeats_for_its_seed_and_moves_with_another() -> None:
    logits, labels = one_hot(PREDICTED * 7, 2), TRUE * 7
    assert interval("f1", logits, labels, seed=1, draws=50) == interval("f1", logits, labels, seed=1, draws=50)
    assert interval("f1", logits, labels, seed=1, draws=50) != interval("f1", logits, labels, seed=2, draws=50)


def test_the_interval_of_a_perfect_classifier_has_no_width() -> None:
    assert interval("accuracy", one_hot([0, 1] * 10, 2), [0, 1] * 10) == (1, 1)
