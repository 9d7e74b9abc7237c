"""Thresholds are the best there are: no others, tried one by one, give a higher F1 on the same texts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from augkd.data.target import Target
from augkd.evaluation.metrics import METRICS, score
from augkd.evaluation.thresholds import with_thresholds

TWO = Target(("a", "b"), multi_label=True)


def best_by_search(metric: str, logits: Any, labels: Any) -> float:
    """The best score over every pair of thresholds that predicts differently."""
    ways = [np.r_[column.min() - 1, np.sort(column) + 1e-3] for column in logits.T]
    return max(METRICS[metric](logits - np.array(cut), labels) for cut in itertools.product(*ways))


@pytest.mark.parametrize("metric", ["micro_f1", "macro_f1"])
def test_no_other_thresholds_score_higher(metric: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        logits = np.round(rng.normal(size=(6, 2)), 1)
        labels = (rng.random((6, 2)) < 0.4).astype(np.float32)
        chosen = with_thresholds(TWO, metric, logits, labels)
        assert score(metric, chosen, logits, labels) == pytest.approx(best_by_search(metric, logits, labels))


def test_equally_good_thresholds_stay_at_a_half() -> None:
    logits, labels = np.array([[2.0, 1.0], [-1.0, -2.0]]), np.array([[1, 1], [0, 0]], dtype=np.float32)
    assert with_thresholds(TWO, "micro_f1", logits, labels).thresholds == (0.5, 0.5)


def test_a_rare_label_that_is_never_above_a_half_gets_a_threshold_of_its_own() -> None:
    logits = np.array([[-1.0, 0.0], [-3.0, 1.0], [-4.0, -1.0], [-5.0, -2.0]])
    labels = np.array([[1, 1], [0, 1], [0, 0], [0, 0]], dtype=np.float32)
    chosen = with_thresholds(TWO, "macro_f1", logits, labels)
    assert chosen.thresholds[0] == pytest.approx(1 / (1 + np.exp(2)), abs=1e-6)  # half way between -1 and -3
    assert score("macro_f1", TWO, logits, labels) < score("macro_f1", chosen, logits, labels) == 1


@pytest.mark.parametrize("target", [Target(("a", "b")), Target()])
def test_only_several_labels_have_thresholds(target: Target) -> None:
    assert with_thresholds(target, target.metrics[0], np.zeros((3, target.outputs)), [0, 1, 0]) == target
