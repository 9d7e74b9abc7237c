"""What is taken of the usable: not the same thing twice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from augkd.candidates.neighbours.diversity import mmr, one_owner_each
from augkd.candidates.neighbours.pairs import best_combinations, joined_by_cosine, joined_by_rank

RELEVANCE = np.array([0.9, 0.89, 0.6, 0.5], dtype=np.float32)
LIKENESS = np.array(
    [[1.0, 0.99, 0.1, 0.2], [0.99, 1.0, 0.1, 0.2], [0.1, 0.1, 1.0, 0.9], [0.2, 0.2, 0.9, 1.0]], dtype=np.float32
)


def test_without_diversity_the_order_is_that_of_relevance() -> None:
    assert mmr(RELEVANCE, LIKENESS, 3, 0.0) == [0, 1, 2]


def test_diversity_passes_over_what_is_like_a_pick() -> None:
    # after 0: 1 is worth 0.445 - 0.495, 2 is worth 0.3 - 0.05, 3 is worth 0.25 - 0.1
    assert mmr(RELEVANCE, LIKENESS, 2, 0.5) == [0, 2]
    # then 1: 0.445 - 0.495 = -0.05, and 3: 0.25 - 0.45 = -0.2
    assert mmr(RELEVANCE, LIKENESS, 4, 0.5) == [0, 2, 1, 3]


def test_mmr_is_what_its_definition_says_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    for diversity in (0.2, 0.5, 0.8, 1.0):
        vectors = rng.normal(size=(12, 5))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        relevance = (vectors @ vectors[0]).astype(np.float32)
        likeness = (vectors @ vectors.T).astype(np.float32)
        expected = [int(relevance.argmax())]
        while len(expected) < 6:
            worth = {
                at: (1 - diversity) * float(relevance[at]) - diversity * max(float(likeness[at, p]) for p in expected)
                for at in range(12)
                if at not in expected
            }
            expected.append(max(worth, key=lambda at: (worth[at], -at)))
        assert mmr(relevance, likeness, 6, diversity) == expected


def test_mmr_keeps_all_where_there_are_too_few() -> None:
    assert sorted(mmr(RELEVANCE, LIKENESS, 9, 0.5)) == [0, 1, 2, 3]
    assert mmr(np.zeros(0, dtype=np.float32), np.zeros((0, 0), dtype=np.float32), 3, 0.5) == []


def owned(room: list[int], taken: dict[str, int] | None = None) -> list[list[int]]:
    scores = [np.array([0.9, 0.5, 0.4], dtype=np.float32), np.array([0.8, 0.6], dtype=np.float32)]
    keys = [[("x",), ("y",), ("z",)], [("x",), ("y",)]]
    return one_owner_each(scores, keys, [0, 1], room, {} if taken is None else taken)


def test_a_text_goes_to_the_best_scoring_owner_only() -> None:
    assert owned([3, 2]) == [[0, 2], [1]]  # x to the first (0.9), y to the second (0.6)


def test_a_text_its_best_owner_has_no_room_for_goes_to_the_next() -> None:
    assert owned([1, 1]) == [[0], [1]]
    assert owned([0, 2]) == [[], [0, 1]]


def test_a_text_owned_before_is_not_given_again() -> None:
    taken = {"y": 7}
    assert owned([3, 2], taken) == [[0, 2], []]
    assert taken == {"x": 0, "y": 7, "z": 0}


def test_an_owner_may_use_a_text_in_two_places() -> None:
    scores = [np.array([0.9], dtype=np.float32), np.array([0.8], dtype=np.float32)]
    assert one_owner_each(scores, [[("x",)], [("x",)]], [4, 4], [1, 1], {}) == [[0], [0]]
    assert one_owner_each(scores, [[("x",)], [("x",)]], [4, 5], [1, 1], {}) == [[0], []]  # the twin


def test_a_pair_needs_both_its_texts() -> None:
    scores = [np.array([0.9], dtype=np.float32), np.array([0.8, 0.7], dtype=np.float32)]
    assert one_owner_each(scores, [[("x", "y")], [("y", "z"), ("z", "w")]], [0, 1], [1, 2], {}) == [[0], [1]]


def test_nothing_to_own_is_nothing() -> None:
    assert one_owner_each([], [], [], [], {}) == []


def test_combinations_keep_the_relation_between_the_sides() -> None:
    first, second = np.array([0.9, 0.8], dtype=np.float32), np.array([0.9, 0.8], dtype=np.float32)
    between = np.array([[0.1, 0.5], [0.1, 0.7]], dtype=np.float32)
    worth = joined_by_cosine(first, second, between, relation=0.7)
    assert worth == pytest.approx(np.array([[1.8 - 0.6, 1.7 - 0.2], [1.7 - 0.6, 1.6 - 0.0]]), abs=1e-6)
    assert best_combinations(worth, ["a", "b"], ["c", "d"], 2) == [(1, 1), (0, 0)]
    alone = joined_by_cosine(first, second, np.full((2, 2), 0.7, dtype=np.float32), relation=0.7)
    assert best_combinations(alone, ["a", "b"], ["c", "d"], 2) == [(0, 0), (1, 1)]  # the twin: nothing to keep


def test_no_combination_is_of_a_text_with_itself_or_uses_one_twice() -> None:
    worth = joined_by_rank(3, 3)
    assert worth.tolist() == [[0, -1, -2], [-1, -2, -3], [-2, -3, -4]]
    assert best_combinations(worth, ["a", "b", "c"], ["x", "y", "z"], 3) == [(0, 0), (1, 1), (2, 2)]
    assert best_combinations(worth, ["a", "b", "c"], ["a", "y", "z"], 3) == [(0, 1), (1, 0), (2, 2)]


def test_the_first_combination_is_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    worth = rng.normal(size=(5, 4))
    best = max(itertools.product(range(5), range(4)), key=lambda at: worth[at])
    assert best_combinations(worth, list("abcde"), list("wxyz"), 1) == [best]
    assert best_combinations(np.zeros((0, 3)), [], list("xyz"), 2) == []
