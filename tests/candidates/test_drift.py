"""Drift equals values computed by hand and by NumPy, and the bound rejects what is too far and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from augkd.candidates import drift as module
from augkd.candidates.candidate import Candidate
from augkd.candidates.drift import (
    agreement,
    bound_drift,
    cosines,
    measure,
    replaced_share,
    summary,
)
from augkd.data.target import NO_CLASS, Target
from augkd.data.task import Example
from augkd.errors import RecipeError

TWO = Target(("a", "b"))


class Angles:
    """Encodes texts that begin with a number of degrees as vectors in the plane; records the texts."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += texts
        angles = np.radians([float(text.split()[0]) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def candidate(owner: str, text: str, pair: str | None = None, source: str = "substitution") -> Candidate:
    return Candidate(f"w-{text}-{pair}", owner, text, pair, source, 0.5)


SINGLE = Example("a", "0 deg", None, 0)
PAIR = Example("b", "10 deg", "50 deg", 1)
POOLS = [
    [candidate("a", "60 deg"), candidate("a", "90 deg", source="generator"), candidate("a", "0 deg here")],
    [
        candidate("b", "10 deg", "80 deg"),
        candidate("b", "100 deg", "50 deg"),
        candidate("b", "40 deg", "51 deg", "neighbours"),
    ],
]
COSINES = np.cos(np.radians([60, 90, 0, 30, 90, 30]))


# ---- distance ----


def test_the_cosine_is_to_the_original_and_for_a_pair_that_of_the_side_that_moved_more() -> None:
    assert cosines([SINGLE, PAIR], POOLS, Angles()) == pytest.approx(COSINES, abs=1e-6)


def test_a_mean_would_let_a_pair_s_unchanged_side_hide_the_other() -> None:
    (cosine,) = cosines([PAIR], [[candidate("b", "100 deg", "50 deg")]], Angles())
    assert cosine == pytest.approx(0, abs=1e-6)  # the mean of both sides is 0.5


def test_each_distinct_text_is_encoded_once_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 3)
    encoder = Angles()
    twice = [*POOLS[0], *POOLS[0]]
    values = cosines([SINGLE, SINGLE, PAIR], [twice, POOLS[0], POOLS[1]], encoder)
    assert sorted(encoder.encoded) == sorted(set(encoder.encoded))
    assert values == pytest.approx(np.concatenate([COSINES[:3], COSINES[:3], COSINES]), abs=1e-6)


def test_without_candidates_there_are_no_cosines_and_nothing_is_encoded() -> None:
    encoder = Angles()
    assert cosines([SINGLE], [[]], encoder).shape == (0,)
    assert encoder.encoded == []
    assert cosines([SINGLE, PAIR, SINGLE], [[], POOLS[1], []], encoder) == pytest.approx(COSINES[3:], abs=1e-6)


def test_candidates_beyond_the_bound_are_rejected_and_counted_by_source() -> None:
    bounded = bound_drift(POOLS, COSINES.astype(np.float32), 0.45, {"substitution", "generator"})
    assert bounded.candidates == [[POOLS[0][2]], [POOLS[1][0], POOLS[1][2]]]
    assert bounded.kept.tolist() == [False, False, True, True, False, True]
    assert bounded.rejected == {"generator": 1, "substitution": 2}


def test_without_a_bound_and_for_other_sources_everything_stays() -> None:
    cosine = COSINES.astype(np.float32)
    unbounded = bound_drift(POOLS, cosine, None, {"substitution"})
    assert unbounded.candidates == POOLS
    assert unbounded.rejected == {"substitution": 0}
    others = bound_drift(POOLS, cosine, 0.1, {"neighbours"})
    assert others.kept.tolist() == [True] * 5 + [False]
    assert others.rejected == {"neighbours": 1}


def test_a_distance_equal_to_the_bound_is_kept() -> None:
    pools = [[candidate("a", "x")]]
    assert bound_drift(pools, np.array([0.5], dtype=np.float32), 0.5, {"substitution"}).kept.all()
    assert not bound_drift(pools, np.array([0.5], dtype=np.float32), 0.499, {"substitution"}).kept.any()


@pytest.mark.parametrize("bound", [-0.1, 2.1, float("nan")])
def test_a_bound_that_is_not_a_cosine_distance_is_refused(bound: float) -> None:
    with pytest.raises(RecipeError, match=r"max_distance is .*; give a cosine distance from 0 to 2"):
        bound_drift(POOLS, COSINES.astype(np.float32), bound, {"substitution"})


# ---- words ----


@pytest.mark.parametrize(
    ("text", "new", "share"),
    [
        ("What is the capital ?", "What is the river ?", 1 / 4),
        ("What is the capital ?", "the capital is what", 0),
        ("a rose is a rose", "a rose is a flower", 1 / 5),
        ("a rose is a rose", "is", 4 / 5),
        ("one two", "THREE Four five", 1),
        ("12 ?", "anything", 0),
    ],
)
def test_the_replaced_share_counts_the_original_s_words_that_are_gone(text: str, new: str, share: float) -> None:
    assert replaced_share(Example("a", text), candidate("a", new)) == pytest.approx(share)


def test_both_sides_of_a_pair_count_as_one_text() -> None:
    example = Example("a", "red house", "green tree by the sea")
    assert replaced_share(example, candidate("a", "red car", "green tree by the sea")) == pytest.approx(1 / 7)


# ---- the teacher ----

LOGITS = np.array([[2, 0, 0], [0, 1, 0], [np.nan] * 3, [0, 0, 5]], dtype=np.float32)


def test_agreement_compares_the_highest_logit_and_unknown_stays_unknown() -> None:
    expected = np.array([0, 0, 0, NO_CLASS])
    assert agreement(Target(("a", "b", "c")), LOGITS, expected) == pytest.approx([1, 0, np.nan, np.nan], nan_ok=True)


def test_several_labels_agree_by_the_share_that_both_have() -> None:
    target = Target(("a", "b", "c"), multi_label=True)
    logits = np.array([[1, 1, -1], [-1, -1, -1], [np.nan] * 3], dtype=np.float32)
    expected = target.encode([["a", "c"], [], ["a"]])
    assert agreement(target, logits, expected) == pytest.approx([1 / 3, 1, np.nan], nan_ok=True)


def test_everything_is_measured_against_the_owner() -> None:
    original = np.array([[3, 0], [3, 0]], dtype=np.float32)  # the teacher is wrong about the second
    of_candidates = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    drift = measure([SINGLE, PAIR], POOLS, COSINES.astype(np.float32), original, of_candidates, TWO)
    assert drift.agreement.tolist() == [1, 0, 1, 1, 0, 0]
    assert drift.gold_agreement.tolist() == [1, 0, 1, 0, 1, 1]
    assert drift.confidence == pytest.approx([np.e / (1 + np.e)] * 6)
    assert drift.replaced.tolist() == [0] * 6  # numbers are not words
    assert drift.source[1] == "generator"


def test_regression_and_missing_labels_leave_no_agreement() -> None:
    example = Example("a", "0 deg", None, 2.5)
    logits = np.array([[2.0]], dtype=np.float32)
    drift = measure([example], [POOLS[0][:1]], COSINES[:1].astype(np.float32), logits, logits, Target())
    assert np.isnan([*drift.agreement, *drift.gold_agreement, *drift.confidence]).all()
    assert set(summary(drift)["substitution"]) == {"cosine", "replaced"}
    unlabelled = Example("a", "0 deg")
    two = np.array([[1.0, 0]], dtype=np.float32)
    drift = measure([unlabelled], [POOLS[0][:1]], COSINES[:1].astype(np.float32), two, two, TWO)
    assert set(summary(drift)["substitution"]) == {"cosine", "replaced", "confidence", "agreement"}


def test_the_summary_is_numpy_s_mean_and_quantiles_of_each_source_and_json() -> None:
    logits = np.array([[1, 0]] * 6, dtype=np.float32)
    drift = measure([SINGLE, PAIR], POOLS, COSINES.astype(np.float32), logits[:2], logits, TWO)
    by_source = summary(drift)
    assert list(by_source) == ["generator", "neighbours", "substitution"]
    of_substitution = COSINES[[0, 2, 3, 4]]
    assert by_source["substitution"]["cosine"] == pytest.approx(
        {
            "count": 4,
            "mean": of_substitution.mean(),
            **{f"q{q}": np.quantile(of_substitution, q / 100) for q in (5, 25, 50, 75, 95)},
        },
        abs=1e-6,
    )
    assert by_source["substitution"]["agreement"]["mean"] == 1.0
    assert by_source["substitution"]["gold_agreement"]["mean"] == 0.5
    assert json.loads(json.dumps(by_source)) == by_source


def test_without_candidates_the_summary_is_empty() -> None:
    none = np.zeros((0, 3), dtype=np.float32)
    target = Target(("a", "b", "c"))
    drift = measure([SINGLE], [[]], np.zeros(0, dtype=np.float32), np.zeros((1, 3), dtype=np.float32), none, target)
    assert summary(drift) == {}
    assert bound_drift([[]], np.zeros(0, dtype=np.float32), 0.5, {"substitution"}).rejected == {}
