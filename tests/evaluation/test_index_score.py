"""An index score equals what follows from the teacher's outputs on the index's neighbours."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from augkd.data.target import Target
from augkd.errors import DataError
from augkd.evaluation.index_score import IndexScore, deviation, index_score, rank

CLASSES = Target(("first", "second"))


def logits(*first: float) -> np.ndarray:
    """Logits of two classes whose first has these probabilities."""
    return np.log(np.array([[p, 1 - p] for p in first], dtype=np.float32))


def scored(**changes: Any) -> IndexScore:
    target = changes.pop("target", CLASSES)
    arguments: dict[str, Any] = {
        "original_logits": logits(0.9, 0.2, 0.6),
        "labels": [0, 1, None],
        "owner": np.array([0, 0, 1, 2]),
        "candidate_logits": logits(0.8, 0.4, 0.1, 0.7),
        "similarity": np.array([0.9, 0.7, 0.8, 0.6], dtype=np.float32),
        "texts": ["a", "b", "a", "c"],
        "k": 2,
    }
    arguments |= changes
    arguments["labels"] = target.encode(arguments["labels"])
    return index_score(target, **arguments)


def test_the_score_equals_values_computed_by_hand() -> None:
    score = scored()
    assert (score.coverage, score.distinct) == (pytest.approx(1 / 3), 3)
    assert score.similarity == pytest.approx(0.75)
    assert score.confidence == pytest.approx((0.8 + 0.6 + 0.9 + 0.7) / 4)
    # the second is predicted as class 1, its original is 0; the third label is the teacher's prediction
    assert score.agreement == pytest.approx(3 / 4)
    mean = (0.8 + 0.4 + 0.1 + 0.7) / 4  # 0.5: balanced
    assert mean == pytest.approx(0.5)
    assert score.entropy == pytest.approx(1.0)
    assert scored(candidate_logits=logits(0.9, 0.9, 0.9, 0.9)).entropy == pytest.approx(
        -(0.9 * np.log(0.9) + 0.1 * np.log(0.1)) / np.log(2), abs=1e-6
    )


def test_labels_override_the_teacher_s_predictions() -> None:
    assert scored(labels=[1, 1, None]).agreement == pytest.approx(3 / 4)
    assert scored(labels=[1, 0, 1]).agreement == pytest.approx(1 / 4)


def test_the_deviation_equals_that_of_many_samples() -> None:
    rng = np.random.default_rng(0)
    original = rng.dirichlet(np.ones(3), size=20)
    owner = rng.integers(0, 18, size=60)  # two originals have no candidate
    candidate = rng.dirichlet(np.ones(3), size=60)
    views = [candidate[owner == row] if (owner == row).any() else original[[row]] for row in range(20)]
    counts = np.array([len(view) for view in views])
    rows = rng.integers(0, 20, size=(20_000, 8))
    picks = (np.cumsum(counts) - counts)[rows] + rng.integers(0, counts[rows])
    means = np.concatenate([original[rows], np.concatenate(views)[picks]], axis=1).mean(axis=1)
    sampled = np.std(means, axis=0, ddof=1).mean()
    assert deviation(original, owner, candidate, sample=8) == pytest.approx(sampled, rel=0.02)


def test_without_candidates_the_deviation_is_that_of_the_originals() -> None:
    original = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    alone = deviation(original, np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
    assert alone == pytest.approx(np.std([0.9, 0.2, 0.4]) / 320**0.5)
    copies = deviation(original, np.arange(3), original)
    assert copies == pytest.approx(alone)
    towards_the_mean = deviation(original, np.arange(3), np.tile(original.mean(axis=0), (3, 1)))
    assert towards_the_mean == pytest.approx(alone / 2)


def test_regression_has_correlation_and_no_classes() -> None:
    score = scored(
        target=Target(),
        original_logits=np.array([[1.0], [2.0], [4.0]], dtype=np.float32),
        labels=[1.0, 2.0, 4.0],
        candidate_logits=np.array([[1.5], [0.5], [2.5], [3.0]], dtype=np.float32),
    )
    assert (score.confidence, score.entropy) == (None, None)
    assert score.agreement == pytest.approx(np.corrcoef([1, 1, 2, 4], [1.5, 0.5, 2.5, 3.0])[0, 1])
    # pairs: (1 + 1.5)/2, (1 + 0.5)/2 at a sixth each, (2 + 2.5)/2, (4 + 3)/2 at a third each
    values, weights = np.array([1.25, 0.75, 2.25, 3.5]), np.array([1, 1, 2, 2]) / 6
    spread = np.sqrt(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights))
    assert score.deviation == pytest.approx(spread / 320**0.5)


def test_an_index_without_neighbours_is_scored() -> None:
    score = scored(
        owner=np.zeros(0, dtype=np.int64),
        candidate_logits=np.zeros((0, 2), dtype=np.float32),
        similarity=np.zeros(0, dtype=np.float32),
        texts=[],
    )
    assert dataclasses.asdict(score) == {
        "coverage": 0.0,
        "distinct": 0,
        "similarity": None,
        "confidence": None,
        "agreement": None,
        "entropy": None,
        "deviation": pytest.approx(np.std([0.9, 0.2, 0.6]) / 320**0.5, abs=1e-7),
    }
    assert scored(similarity=None).similarity is None


GOOD = IndexScore(1.0, 100, 0.7, 0.8, 0.8, 0.9, 0.010)


def better(**changes: float | None) -> IndexScore:
    return dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "worse", [{"similarity": 0.6}, {"agreement": 0.7}, {"coverage": 0.5}, {"distinct": 50}, {"agreement": None}]
)
def test_each_criterion_decides_when_the_others_are_equal(worse: dict[str, float | None]) -> None:
    assert rank({"a": better(**worse), "b": GOOD}) == ["b", "a"]
    assert rank({"a": GOOD, "b": better(**worse)}) == ["a", "b"]


@pytest.mark.parametrize("other", [{"deviation": 0.001}, {"confidence": 0.99}, {"entropy": 0.5}])
def test_the_other_statistics_do_not_affect_the_ranking(other: dict[str, float | None]) -> None:
    assert rank({"a": GOOD, "b": better(**other)}) == rank({"a": better(**other), "b": GOOD}) == ["a", "b"]


def test_the_ranking_is_by_mean_rank() -> None:
    # agreement, coverage and distinct for b against similarity for a
    assert rank({"a": better(similarity=0.9, agreement=0.5, coverage=0.9, distinct=90), "b": GOOD}) == ["b", "a"]
    # one against one: the higher agreement wins
    assert rank({"a": better(similarity=0.9, agreement=0.5), "b": GOOD}) == ["b", "a"]
    assert rank({"b": GOOD, "a": GOOD}) == ["a", "b"]
    assert rank({}) == []


def test_cosines_of_different_encoders_and_missing_ones_are_left_out() -> None:
    near = better(similarity=0.9, agreement=0.79)
    assert rank({"a": near, "b": GOOD}, cosines=False) == ["b", "a"]
    assert rank({"a": near, "b": GOOD, "c": better(similarity=None, agreement=0.1)}) == ["b", "a", "c"]
    assert rank({"a": better(similarity=0.9), "b": GOOD}, cosines=False) == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0]}, "one label for each original"),
        ({"texts": ["a"]}, "for each candidate"),
        ({"candidate_logits": np.zeros((4, 3), dtype=np.float32)}, "3 outputs where the originals have 2"),
        ({"candidate_logits": np.full((4, 2), np.nan, dtype=np.float32)}, "drop the rows"),
    ],
)
def test_arrays_of_mismatched_sizes_are_an_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        scored(**changes)
