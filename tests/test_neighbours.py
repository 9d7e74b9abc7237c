"""Neighbours are the nearest texts that may come back, and no others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from augkd.candidates import neighbours as module
from augkd.candidates.neighbours import Candidate, find_neighbours
from augkd.data.corpus import CorpusSource, fold
from augkd.data.task import Example
from augkd.errors import RecipeError
from augkd.retrieval.encoder import SentenceEncoder
from augkd.retrieval.index import Index, build_index


class LetterEncoder:
    """Unit vectors of letter counts: case and punctuation do not matter, and cosines can be done by hand."""

    name = "letters"
    dim = 26
    fingerprint = "letters"

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        counts = np.array([[text.lower().count(chr(97 + letter)) for letter in range(26)] for text in texts])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


def index_of(texts: Sequence[str], folder: Path, encoder: LetterEncoder | SentenceEncoder | None = None) -> Index:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return build_index(folder / "index", CorpusSource(str(path)), encoder or LetterEncoder())


def single(text: str) -> list[Example]:
    return [Example("e", text)]


def texts_of(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.text for candidate in candidates]


CORPUS = ["aab", "abb", "aaab", "zz", "ab", "Ab!", "aabb", "b"]
# cosines to "ab" = (1, 1)/sqrt 2: aab and abb 3/sqrt 10 = 0.949, aaab 4/sqrt 20 = 0.894, b 0.707, zz 0


def test_candidates_are_the_nearest_texts_best_first_ties_by_id(tmp_path: Path) -> None:
    found = find_neighbours(single("ab"), index_of(CORPUS, tmp_path), LetterEncoder(), k=4, excluded=())
    assert texts_of(found.candidates[0]) == ["aabb", "aab", "abb", "aaab"]
    assert [candidate.id for candidate in found.candidates[0]] == ["n6", "n0", "n1", "n2"]
    scores = [candidate.score for candidate in found.candidates[0]]
    assert scores == pytest.approx([1, 3 / 10**0.5, 3 / 10**0.5, 4 / 20**0.5], abs=1e-3)
    assert {(c.owner, c.text_pair, c.source) for c in found.candidates[0]} == {("e", None, "neighbours")}
    assert (found.excluded_evaluation_texts, found.short) == (0, 0)


def test_the_example_itself_is_left_out_by_text_though_it_is_not_the_nearest(tmp_path: Path) -> None:
    corpus = ["aabb", "abab?", "AB.", "abb"]  # the first two tie with, and stand before, the example's own text
    index = index_of(corpus, tmp_path)
    assert texts_of(find_neighbours(single("ab"), index, LetterEncoder(), k=3, excluded=()).candidates[0]) == [
        "aabb",
        "abab?",
        "abb",
    ]
    other = find_neighbours(single("ba"), index, LetterEncoder(), k=3, excluded=()).candidates[0]
    assert "AB." in texts_of(other)  # the twin: the same vector under another text gets it


def test_evaluation_texts_never_come_back(tmp_path: Path) -> None:
    index = index_of([*CORPUS, "AAB?"], tmp_path)
    excluded = {fold("a a b"), fold("aabb"), "notinthecorpus"}
    found = find_neighbours(single("ab"), index, LetterEncoder(), k=4, excluded=excluded)
    assert texts_of(found.candidates[0]) == ["abb", "aaab", "b", "zz"]
    assert found.excluded_evaluation_texts == 2

    without = find_neighbours(single("ab"), index, LetterEncoder(), k=4, excluded=())
    assert texts_of(without.candidates[0]) == ["aabb", "aab", "abb", "aaab"]
    assert without.excluded_evaluation_texts == 0


def test_duplicates_in_all_but_punctuation_come_once(tmp_path: Path) -> None:
    index = index_of(["abb", "ABB", "a b-b!", "b"], tmp_path)
    found = find_neighbours(single("ab"), index, LetterEncoder(), k=3, excluded=())
    assert texts_of(found.candidates[0]) == ["abb", "b"]
    assert found.short == 1


def test_search_goes_deeper_until_k_are_found_but_no_deeper_than_256(tmp_path: Path) -> None:
    crowd = [f"ab{'.' * number}" for number in range(100)]
    index = index_of([*crowd, "abb", "b"], tmp_path)
    found = find_neighbours(single("ab"), index, LetterEncoder(), k=2, excluded=())
    assert texts_of(found.candidates[0]) == ["abb", "b"]

    (tmp_path / "deep").mkdir()
    too_deep = index_of([f"ab{'.' * number}" for number in range(300)] + ["abb"], tmp_path / "deep")
    found = find_neighbours(single("ab"), too_deep, LetterEncoder(), k=1, excluded=())
    assert (found.candidates, found.short) == ([[]], 1)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, ["aabb", "aab", "abb", "aaab", "b", "zz"]),
        ({"min_distance": 0.02}, ["aab", "abb", "aaab", "b", "zz"]),
        ({"max_distance": 0.2}, ["aabb", "aab", "abb", "aaab"]),
        ({"min_distance": 0.08, "max_distance": 0.5}, ["aaab", "b"]),
    ],
)
def test_distance_bounds_hold(tmp_path: Path, bounds: dict[str, float], expected: list[str]) -> None:
    found = find_neighbours(single("ab"), index_of(CORPUS, tmp_path), LetterEncoder(), k=8, excluded=(), **bounds)
    assert texts_of(found.candidates[0]) == expected


def test_pairs_get_half_from_each_side_interleaved_by_score(tmp_path: Path) -> None:
    index = index_of(["aab", "abb", "yyz", "yyyz", "b"], tmp_path)
    found = find_neighbours([Example("p", "ab", "yz")], index, LetterEncoder(), k=3, excluded=())
    assert [(c.id, c.text, c.text_pair) for c in found.candidates[0]] == [
        ("n0-text", "aab", "yz"),
        ("n1-text", "abb", "yz"),
        ("n2-pair", "ab", "yyz"),
    ]
    four = find_neighbours([Example("p", "ab", "yyyyyz")], index, LetterEncoder(), k=4, excluded=())
    assert [c.id for c in four.candidates[0]] == ["n3-pair", "n2-pair", "n0-text", "n1-text"]  # 0.992, 0.965, 0.949
    one = find_neighbours([Example("p", "ab", "yz")], index, LetterEncoder(), k=1, excluded=())
    assert [c.id for c in one.candidates[0]] == ["n0-text"]


def test_neither_side_of_a_pair_comes_back(tmp_path: Path) -> None:
    index = index_of(["ab", "aab", "abb", "b"], tmp_path)
    found = find_neighbours([Example("p", "ab", "aab")], index, LetterEncoder(), k=4, excluded=())
    assert [c.id for c in found.candidates[0]] == ["n2-text", "n2-pair", "n3-text", "n3-pair"]


def test_blocks_change_nothing_but_the_number_of_encodings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(CORPUS, tmp_path)
    examples = [Example(f"e{number}", text) for number, text in enumerate(["ab", "b", "zzb", "aaaab", "bba"])]
    whole, told = LetterEncoder(), []
    expected = find_neighbours(
        examples, index, whole, k=3, excluded={"aab"}, progress=lambda done, total: told.append((done, total))
    )
    monkeypatch.setattr(module, "_BLOCK", 2)
    blocks = LetterEncoder()
    found = find_neighbours(examples, index, blocks, k=3, excluded={"aab"})
    assert [[c.id for c in row] for row in found.candidates] == [[c.id for c in row] for row in expected.candidates]
    assert found.excluded_evaluation_texts == expected.excluded_evaluation_texts == 1
    assert (whole.calls, blocks.calls, told) == (1, 3, [(5, 5)])


def test_no_examples_find_nothing(tmp_path: Path) -> None:
    found = find_neighbours([], index_of(CORPUS, tmp_path), LetterEncoder(), k=3, excluded=())
    assert (found.candidates, found.short) == ([], 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"k": 0}, "k is 0"), ({"k": 1, "min_distance": 0.5, "max_distance": 0.4}, "min_distance 0.5, max_distance 0.4")],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        find_neighbours(single("ab"), index_of(CORPUS, tmp_path), LetterEncoder(), excluded=(), **options)


def test_the_real_encoder_finds_paraphrases(tmp_path: Path) -> None:
    encoder = SentenceEncoder.load()
    corpus = [
        "Bake the bread for an hour.",
        "Which city is France's capital?",
        "He plays the violin.",
        "Rain is likely.",
    ]
    index = index_of(corpus, tmp_path, encoder)
    examples = [Example("0", "What is the capital of France?"), Example("1", "Tomorrow's weather forecast")]
    found = find_neighbours(examples, index, encoder, k=1, excluded=())
    assert [texts_of(row) for row in found.candidates] == [["Which city is France's capital?"], ["Rain is likely."]]
