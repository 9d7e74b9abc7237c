"""Selectors of texts to label: against closed forms, and each against the order that it must not give."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from augkd.selection.estimate import estimate
from augkd.selection.label_selectors import (
    LABEL_SELECTORS,
    Unlabelled,
    accept_reject,
    confidence_uncertainty,
    entropy,
    entropy_of,
    margin,
    predicted_divergence,
    random,
    spread,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logs(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


STUDENT = logs([0.9, 0.05, 0.05], [0.4, 0.3, 0.3], [0.49, 0.49, 0.02], [0.6, 0.2, 0.2])
ESTIMATE = logs([0.05, 0.9, 0.05], [0.4, 0.3, 0.3], [0.98, 0.01, 0.01], [0.6, 0.2, 0.2])
POOL = Unlabelled(STUDENT, ESTIMATE)


def test_entropy_takes_the_flattest_distribution_first() -> None:
    expected = [-(p * np.log(p)).sum() for p in STUDENT.exp().double().numpy()]
    assert entropy(POOL, rng()).tolist() == np.argsort(expected)[::-1].tolist() == [1, 3, 2, 0]
    assert entropy_of(STUDENT).double().numpy() == pytest.approx(np.array(expected) / np.log(3), abs=1e-6)


def test_margin_takes_the_closest_two_classes_first_whatever_the_others_are() -> None:
    assert margin(POOL, rng()).tolist() == [2, 1, 3, 0]


def test_predicted_divergence_takes_where_estimate_and_student_differ_most_and_entropy_does_not() -> None:
    assert predicted_divergence(POOL, rng()).tolist()[:2] == [0, 2]
    assert set(predicted_divergence(POOL, rng()).tolist()[2:]) == {1, 3}, "they agree there"


def test_confidence_uncertainty_wants_a_sure_teacher_and_an_unsure_student() -> None:
    entropies = [-(p * np.log(p)).sum() for p in STUDENT.exp().double().numpy()]
    expected = np.array(entropies) * ESTIMATE.exp().max(dim=1).values.numpy()
    assert confidence_uncertainty(POOL, rng()).tolist() == np.argsort(expected)[::-1].tolist()
    assert confidence_uncertainty(POOL, rng())[0] == 2, "the student is less sure of text 1, but so is the teacher"


def test_accept_reject_draws_first_in_proportion_to_the_uncertainty() -> None:
    pool = Unlabelled(logs([0.5, 0.5], [0.99, 0.01], [0.8, 0.2]), logs([0.5, 0.5]).repeat(3, 1))
    share = entropy_of(pool.student)
    share = (share / share.sum()).tolist()
    first = Counter(int(accept_reject(pool, rng(seed))[0]) for seed in range(3000))
    for place in range(3):
        assert first[place] / 3000 == pytest.approx(share[place], abs=0.03)


def test_random_draws_every_text_first_equally_often() -> None:
    first = Counter(int(random(POOL, rng(seed))[0]) for seed in range(2000))
    assert all(abs(first[place] / 2000 - 0.25) < 0.04 for place in range(4))


@pytest.mark.parametrize("name", LABEL_SELECTORS)
def test_every_selector_orders_the_whole_pool_and_repeats_with_its_seed(name: str) -> None:
    draw = rng(3)
    pool = Unlabelled(torch.randn(50, 3, generator=draw), torch.randn(50, 3, generator=draw).log_softmax(-1))
    order = LABEL_SELECTORS[name](pool, rng(1))
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() == LABEL_SELECTORS[name](pool, rng(1)).tolist()


def test_equal_keys_keep_the_order_of_the_pool() -> None:
    flat = Unlabelled(torch.zeros(600, 2), torch.zeros(600, 2))
    for selector in (entropy, margin, predicted_divergence, confidence_uncertainty):
        assert selector(flat, rng()).tolist() == list(range(600))


# ---- no near-duplicates within a round ----


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_a_text_near_one_that_was_taken_is_skipped() -> None:
    """cos 10° = 0.985, cos 30° = 0.866."""
    vectors = unit(0, 10, 30, 90, 95)
    assert spread(torch.tensor([0, 1, 2, 3, 4]), vectors, 3, 0.9).tolist() == [0, 2, 3]
    assert spread(torch.tensor([1, 0, 4, 3, 2]), vectors, 5, 0.9).tolist() == [1, 4], "fewer than asked for"
    assert spread(torch.tensor([0, 1, 2, 3, 4]), vectors, 3, 1.0).tolist() == [0, 1, 2]


def test_equal_texts_are_near_even_at_one() -> None:
    vectors = unit(33.3, 33.3, 71.7)
    assert spread(torch.tensor([0, 1, 2]), vectors, 3, 1.0).tolist() == [0, 2]


def test_spread_is_the_greedy_rule_over_many_blocks() -> None:
    draw = rng(7)
    vectors = torch.nn.functional.normalize(torch.randn(900, 4, generator=draw), dim=1)
    order = torch.randperm(900, generator=draw)
    taken: list[int] = []
    for place in order.tolist():
        if len(taken) < 120 and all(float(vectors[place] @ vectors[other]) < 0.95 for other in taken):
            taken.append(place)
    assert len(taken) == 120
    assert spread(order, vectors, 120, 0.95).tolist() == taken
    everything = spread(order, vectors, 900, 0.95).tolist()
    assert len(everything) < 900
    assert everything[:120] == taken


# ---- the estimate ----


def test_the_estimate_is_the_optimum_of_penalised_logistic_regression() -> None:
    draw = rng(2)
    vectors = torch.nn.functional.normalize(torch.randn(300, 8, generator=draw), dim=1)
    classes = torch.randint(3, (200,), generator=draw)
    teacher = torch.nn.functional.one_hot(classes, 3).float().log()
    inputs = np.hstack([vectors.double().numpy(), np.ones((300, 1))])
    peer = LogisticRegression(C=1 / (2 * 0.2), fit_intercept=False, tol=1e-10, max_iter=2000)
    expected = peer.fit(inputs[:200], classes.numpy()).predict_proba(inputs)
    assert estimate(vectors, vectors[:200], teacher).exp().numpy() == pytest.approx(expected, abs=1e-4)


def test_the_estimate_learns_from_the_whole_distribution() -> None:
    sure, unsure = logs([0.99, 0.01], [0.01, 0.99]), logs([0.6, 0.4], [0.4, 0.6])
    known = unit(0, 90).repeat(100, 1)
    for teacher in (sure, unsure):
        near = estimate(unit(0, 90), known, teacher.repeat(100, 1)).exp()
        assert near.numpy() == pytest.approx(teacher.exp().numpy(), abs=0.02)


def test_one_labelled_text_is_enough_for_an_estimate() -> None:
    near, far = estimate(unit(0, 90), unit(0), logs([0.9, 0.1])).exp()[:, 0].tolist()
    assert 0.5 < far < near < 0.9


def test_the_estimate_repeats() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(500, 16, generator=rng(4)), dim=1)
    teacher = torch.randn(100, 4, generator=rng(5))
    assert estimate(vectors, vectors[:100], teacher).equal(estimate(vectors, vectors[:100], teacher))
