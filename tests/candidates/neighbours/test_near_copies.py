"""Copies by common words, where an index has no cosine: vowel signs and emoji make other words."""

from __future__ import annotations

import re

import pytest

from augkd.candidates.neighbours.near_copies import jaccard


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        ("இது கலை", "இது காலை", 1 / 3),  # this art, this morning
        ("मेरा कल अच्छा था", "मेरा कला अच्छा था", 3 / 5),
        ("so good 😀", "so good 😢", 2 / 4),
        ("so good 😀😀", "so good 😀", 1.0),
        ("Café, bitte!", "cafe\u0301 bitte", 1.0),
        ("what 's the name ?", "What's the name?", 1.0),
        ("😀", "😢", 0.0),
        ("", "?", 0.0),
    ],
)
def test_words_are_compared_with_their_marks(first: str, second: str, share: float) -> None:
    assert jaccard(first, second) == pytest.approx(share)


def test_in_latin_script_words_are_what_they_always_were() -> None:
    for text in ("It's 3.5 % off_peak – naïve café", "A-b_c d/e (f)", "Müller's Straße 12"):
        other = text.split()[0]
        a, b = set(re.findall(r"\w+", text.casefold())), set(re.findall(r"\w+", other.casefold()))
        assert jaccard(text, other) == pytest.approx(len(a & b) / len(a | b))
