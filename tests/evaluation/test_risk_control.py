"""The promised agreement is kept as often as promised; temperature and bound equal figures made elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from augkd.data.target import Target
from augkd.errors import DataError
from augkd.evaluation.risk_control import choose_threshold, fewest_texts, temperature_of

TWO = Target(("a", "b"))
SEVERAL = Target(("a", "b", "c"), multi_label=True)


def population(n: int, seed: int, heat: float = 1.0) -> tuple[Any, Any]:
    """Logits of two classes and a reference that agrees as often as the student's probability says."""
    rng = np.random.default_rng(seed)
    margin = np.abs(rng.normal(0, 3, n))
    predicted = rng.integers(0, 2, n)
    right = rng.random(n) < 1 / (1 + np.exp(-margin))
    logits = heat * np.where(predicted[:, None] == np.arange(2), margin[:, None] / 2, -margin[:, None] / 2)
    return logits, np.where(right, predicted, 1 - predicted)


def true_agreement(threshold: float) -> float:
    """Of the population, above a confidence, by a million draws."""
    margin = np.abs(np.random.default_rng(99).normal(0, 3, 1_000_000))
    probability = 1 / (1 + np.exp(-margin))
    return float(probability[probability >= threshold].mean())


@pytest.mark.parametrize("agreement", [0.9, 0.95])
def test_the_promise_holds_for_the_population_as_often_as_promised(agreement: float) -> None:
    held, answered = [], []
    for seed in range(200):
        logits, reference = population(800, seed)
        found = choose_threshold(TWO, logits, reference, agreement=agreement, confidence=0.9, seed=seed)
        if found.value is None:
            held.append(True)
            continue
        # a text is answered where its scaled confidence reaches the threshold; back to the margin's own scale
        odds = found.temperature * np.log(found.value / (1 - found.value))
        held.append(true_agreement(1 / (1 + np.exp(-odds))) >= agreement)
        answered.append(found.answered / found.tested)
    assert np.mean(held) >= 0.9 - 0.04, "90 % is promised; two standard errors of 200 trials are 4 points"
    assert len(answered) > 120, "and it is not kept by never answering"
    assert np.mean(answered) > 0.2


def test_a_threshold_taken_by_its_figure_alone_breaks_the_promise_that_the_bound_keeps() -> None:
    broken = 0
    for seed in range(200):
        logits, reference = population(400, seed)
        sure, right = TWO.confidence(logits), logits.argmax(axis=1) == reference
        order = np.argsort(-sure)
        share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        naive = sure[order][np.flatnonzero(share >= 0.95).max()]
        broken += true_agreement(float(naive)) < 0.95
    assert broken > 60, "most answers at an observed 95 %: the promise fails far more often than once in ten"


def test_the_lower_bound_is_clopper_pearson_s() -> None:
    logits, reference = population(1200, 3)
    found = choose_threshold(TWO, logits, reference, agreement=0.9, confidence=0.95)
    assert found.value is not None
    interval = binomtest(found.agreed, found.answered).proportion_ci(confidence_level=0.9, method="exact")
    assert found.lower_bound == pytest.approx(interval.low, abs=1e-9)
    assert found.lower_bound >= 0.9
    assert found.tested == 900, "a quarter of the texts gave the order"


def test_the_temperature_undoes_a_scale_of_the_logits() -> None:
    logits, reference = population(20_000, 0, heat=3.0)
    assert temperature_of(TWO, logits, reference) == pytest.approx(3.0, rel=0.05)
    rng = np.random.default_rng(0)
    several = rng.normal(0, 2, (8000, 3))
    labels = (rng.random((8000, 3)) < 1 / (1 + np.exp(-several))).astype(np.int64)
    assert temperature_of(SEVERAL, 2 * several, labels) == pytest.approx(2.0, rel=0.05)


def test_a_student_that_never_agrees_often_enough_answers_nothing() -> None:
    logits, _ = population(600, 0)
    reference = np.random.default_rng(0).integers(0, 2, 600)
    found = choose_threshold(TWO, logits, reference, agreement=0.95, confidence=0.95)
    assert (found.value, found.answered, found.lower_bound) == (None, 0, None)


def test_several_labels_are_answered_where_all_of_them_agree() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 6, (2000, 3))
    reference = (rng.random((2000, 3)) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    found = choose_threshold(SEVERAL, logits, reference, agreement=0.9, confidence=0.95)
    assert found.value is not None
    above = SEVERAL.confidence(logits, found.temperature) >= found.value
    assert (SEVERAL.predictions(logits)[above] == reference[above]).all(axis=1).mean() >= 0.9
    assert 0.1 < above.mean() < 0.9


@pytest.mark.parametrize(
    ("target", "n", "options", "message"),
    [
        (Target(), 500, {}, "a number has no confidence"),
        (TWO, 500, {"agreement": 1.0}, r"agreement is 1; give a share between 0 and 1"),
        (TWO, 500, {"confidence": 0.0}, r"confidence is 0; give a share between 0 and 1"),
        (
            TWO,
            120,
            {},
            r"120 texts are too few to promise an agreement of 0\.97 .* 99 must be answered .* at least 132",
        ),
    ],
)
def test_what_cannot_be_promised_is_refused(target: Target, n: int, options: dict[str, float], message: str) -> None:
    shares = {"agreement": 0.97, "confidence": 0.95} | options
    with pytest.raises(DataError, match=message):
        choose_threshold(target, np.zeros((n, target.outputs)), np.zeros(n, dtype=np.int64), **shares)


def test_the_fewest_texts_are_those_whose_agreement_alone_reaches_the_bound() -> None:
    n = fewest_texts(0.97, 0.95)
    assert 0.97**n <= 0.05 < 0.97 ** (n - 1)
