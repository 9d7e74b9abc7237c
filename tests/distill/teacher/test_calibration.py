"""A temperature fitted to labels: against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from augkd.distill.teacher.calibration import NOT_FITTED, calibration_error, fit_temperature


def logits_of(probability: float, right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes; class 0 has this probability in every row, and is right in `right` of them."""
    rows = np.tile(np.log([probability, 1 - probability]), (right + wrong, 1))
    return rows, np.array([0] * right + [1] * wrong)


@pytest.mark.parametrize(("said", "right"), [(0.99, 80), (0.6, 90)])
def test_the_probability_becomes_the_accuracy_where_all_texts_are_equally_sure(said: float, right: int) -> None:
    """sigmoid(logit(p) / T) = accuracy has the solution T = logit(p) / logit(accuracy)."""
    rows, labels = logits_of(said, right, 100 - right)
    expected = np.log(said / (1 - said)) / np.log(right / (100 - right))
    fitted = fit_temperature(rows, labels)
    assert fitted.temperature == pytest.approx(expected, rel=1e-3)
    assert fitted.texts == 100
    assert fitted.ece is not None
    assert fitted.ece[0] == pytest.approx(abs(said - right / 100))
    assert fitted.ece[1] == pytest.approx(0, abs=1e-3)


def test_fewer_than_twenty_texts_are_not_fitted() -> None:
    assert fit_temperature(*logits_of(0.99, 15, 4)) == NOT_FITTED
    assert fit_temperature(*logits_of(0.99, 16, 4)) != NOT_FITTED


def test_the_calibration_error_weighs_bins_by_their_texts() -> None:
    """3 texts at 0.95, all right: gap 0.05; 1 text at 0.65, wrong: gap 0.65."""
    rows = np.log([[0.95, 0.05]] * 3 + [[0.65, 0.35]])
    assert calibration_error(rows, np.array([0, 0, 0, 1])) == pytest.approx(0.75 * 0.05 + 0.25 * 0.65)
