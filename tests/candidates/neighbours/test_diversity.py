"""Diversity and uniqueness keep a text from being taken twice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from augkd.candidates.neighbours.diversity import assign_owners, mmr
from augkd.candidates.neighbours.pairs import best_combinations, scores_by_cosine, scores_by_rank

RELEVANCE = np.array([0.9, 0.89, 0.6, 0.5], dtype=np.float32)
SIMILARITY = np.array(
    [[1.0, 0.99, 0.1, 0.2], [0.99, 1.0, 0.1, 0.2], [0.1, 0.1, 1.0, 0.9], [0.2, 0.2, 0.9, 1.0]], dtype=np.float32
)


def test_without_diversity_the_order_is_that_of_relevance() -> None:
    assert mmr(RELEVANCE, SIMILARITY, 3, 0.0) == [0, 1, 2]


def test_diversity_passes_over_what_is_similar_to_a_pick() -> None:
    # after 0: the value of 1 is 0.445 - 0.495, of 2 0.3 - 0.05, of 3 0.25 - 0.1
    assert mmr(RELEVANCE, SIMILARITY, 2, 0.5) == [0, 2]
    # then 1: 0.445 - 0.495 = -0.05, and 3: 0.25 - 0.45 = -0.2
    assert mmr(RELEVANCE, SIMILARITY, 4, 0.5) == [0, 2, 1, 3]


def test_mmr_equals_its_definition_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    for diversity in (0.2, 0.5, 0.8, 1.0):
        vectors = rng.normal(size=(12, 5))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        relevance = (vectors @ vectors[0]).astype(np.float32)
        similarity = (vectors @ vectors.T).astype(np.float32)
        expected = [int(relevance.argmax())]
        while len(expected) < 6:
            value = {
                row: (1 - diversity) * float(relevance[row])
                - diversity * max(float(similarity[row, pick]) for pick in expected)
                for row in range(12)
                if row not in expected
            }
            expected.append(max(value, key=lambda row: (value[row], -row)))
        assert mmr(relevance, similarity, 6, diversity) == expected


def test_mmr_keeps_all_where_there_are_too_few() -> None:
    assert sorted(mmr(RELEVANCE, SIMILARITY, 9, 0.5)) == [0, 1, 2, 3]
    assert mmr(np.zeros(0, dtype=np.float32), np.zeros((0, 0), dtype=np.float32), 3, 0.5) == []


def kept_by_owners(capacities: list[int], owners: dict[str, int] | None = None) -> list[list[int]]:
    scores = [np.array([0.9, 0.5, 0.4], dtype=np.float32), np.array([0.8, 0.6], dtype=np.float32)]
    keys = [[("x",), ("y",), ("z",)], [("x",), ("y",)]]
    return assign_owners(scores, keys, [0, 1], capacities, {} if owners is None else owners)


def test_a_text_goes_to_the_best_scoring_owner_only() -> None:
    assert kept_by_owners([3, 2]) == [[0, 2], [1]]  # x to the first (0.9), y to the second (0.6)


def test_a_text_its_best_owner_has_no_room_for_goes_to_the_next() -> None:
    assert kept_by_owners([1, 1]) == [[0], [1]]
    assert kept_by_owners([0, 2]) == [[], [0, 1]]


def test_a_text_owned_before_is_not_given_again() -> None:
    owners = {"y": 7}
    assert kept_by_owners([3, 2], owners) == [[0, 2], []]
    assert owners == {"x": 0, "y": 7, "z": 0}


def test_an_owner_may_use_a_text_in_two_places() -> None:
    scores = [np.array([0.9], dtype=np.float32), np.array([0.8], dtype=np.float32)]
    assert assign_owners(scores, [[("x",)], [("x",)]], [4, 4], [1, 1], {}) == [[0], [0]]
    assert assign_owners(scores, [[("x",)], [("x",)]], [4, 5], [1, 1], {}) == [[0], []]  # two owners


def test_a_pair_needs_both_its_texts() -> None:
    scores = [np.array([0.9], dtype=np.float32), np.array([0.8, 0.7], dtype=np.float32)]
    assert assign_owners(scores, [[("x", "y")], [("y", "z"), ("z", "w")]], [0, 1], [1, 2], {}) == [[0], [1]]


def test_without_candidates_nothing_is_kept() -> None:
    assert assign_owners([], [], [], [], {}) == []


def test_combinations_preserve_the_similarity_between_the_sides() -> None:
    first, second = np.array([0.9, 0.8], dtype=np.float32), np.array([0.9, 0.8], dtype=np.float32)
    between = np.array([[0.1, 0.5], [0.1, 0.7]], dtype=np.float32)
    scores = scores_by_cosine(first, second, between, relation=0.7)
    assert scores == pytest.approx(np.array([[1.8 - 0.6, 1.7 - 0.2], [1.7 - 0.6, 1.6 - 0.0]]), abs=1e-6)
    assert best_combinations(scores, ["a", "b"], ["c", "d"], 2) == [(1, 1), (0, 0)]
    equal = scores_by_cosine(first, second, np.full((2, 2), 0.7, dtype=np.float32), relation=0.7)
    assert best_combinations(equal, ["a", "b"], ["c", "d"], 2) == [(0, 0), (1, 1)]  # nothing to preserve


def test_no_combination_pairs_a_text_with_itself_or_uses_one_twice() -> None:
    scores = scores_by_rank(3, 3)
    assert scores.tolist() == [[0, -1, -2], [-1, -2, -3], [-2, -3, -4]]
    assert best_combinations(scores, ["a", "b", "c"], ["x", "y", "z"], 3) == [(0, 0), (1, 1), (2, 2)]
    assert best_combinations(scores, ["a", "b", "c"], ["a", "y", "z"], 3) == [(0, 1), (1, 0), (2, 2)]


def test_the_first_combination_is_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(5, 4))
    best = max(itertools.product(range(5), range(4)), key=lambda place: scores[place])
    assert best_combinations(scores, list("abcde"), list("wxyz"), 1) == [best]
    assert best_combinations(np.zeros((0, 3)), [], list("xyz"), 2) == []
