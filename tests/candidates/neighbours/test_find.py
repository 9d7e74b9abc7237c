"""Neighbours are the nearest texts that may come back, searched for and chosen as the options say, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augkd.candidates.candidate import Candidate
from augkd.candidates.neighbours import near_copies, strategies
from augkd.candidates.neighbours.find import Neighbours, find_neighbours
from augkd.candidates.neighbours.near_copies import WithheldText
from augkd.data.corpus import CorpusSource
from augkd.data.task import Example
from augkd.errors import DataError, RecipeError
from augkd.retrieval.dense.retriever import DenseRetriever
from augkd.retrieval.dense.search import Index
from augkd.retrieval.encoders.sentence import SentenceEncoder
from augkd.retrieval.engines.local import build_dense
from augkd.retrieval.retriever import Hits, best_first
from augkd.workspace.progress import Steps


class Letters:
    """Brute force over unit vectors of letter counts, ignoring case, so that cosines can be computed by hand."""

    folder = Path("letters")
    manifest: Mapping[str, Any] = {}
    bounded = True

    def __init__(self, corpus: Sequence[str]) -> None:
        self.corpus = list(corpus)
        self.depths: list[int] = []

    def __len__(self) -> int:
        return len(self.corpus)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.array(
            [[text.lower().count(chr(97 + letter)) for letter in range(26)] for text in texts], dtype=float
        )
        counts = counts.reshape(-1, 26)
        return (counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def search(self, texts: Sequence[str], k: int, *, vectors: bool = False, progress: Steps | None = None) -> Hits:
        hits = self._nearest(self.encode(texts), k, vectors)
        for done in range(len(texts)):
            if progress is not None:
                progress(done + 1, len(texts))
        return hits

    def search_average(
        self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False, progress: Steps | None = None
    ) -> Hits:
        means = np.stack([self.encode(group).mean(axis=0) for group in groups])
        return self._nearest(means / np.linalg.norm(means, axis=1, keepdims=True), k, vectors)

    def texts(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        return [self.corpus[int(id_)] for id_ in ids]

    def _nearest(self, queries: np.ndarray, k: int, vectors: bool) -> Hits:
        self.depths.append(k)
        stored = self.encode(self.corpus)
        scores = np.round(queries @ stored.T, 6).astype(np.float32)
        ids = np.tile(np.arange(len(stored)), (len(queries), 1))
        return best_first(scores, ids, np.tile(stored, (len(queries), 1, 1)) if vectors else None, k)


class Words(Letters):
    """A tiny lexical index: a score is the number of common words."""

    folder = Path("words")
    bounded = False

    def search(self, texts: Sequence[str], k: int, *, vectors: bool = False, progress: Steps | None = None) -> Hits:
        return self._common([set(re.findall(r"\w+", text.lower())) for text in texts], k)

    def search_average(
        self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False, progress: Steps | None = None
    ) -> Hits:
        return self._common([set(re.findall(r"\w+", " ".join(group).lower())) for group in groups], k)

    def _common(self, queries: Sequence[set[str]], k: int) -> Hits:
        stored = [set(re.findall(r"\w+", text.lower())) for text in self.corpus]
        scores = np.array([[len(words & query) for words in stored] for query in queries], dtype=np.float32)
        return best_first(scores, np.tile(np.arange(len(stored)), (len(queries), 1)), None, k)


def neighbours_of(corpus: Sequence[str] | Letters, *texts: str | Example, **options: Any) -> Neighbours:
    retriever = corpus if isinstance(corpus, Letters) else Letters(corpus)
    examples = [Example(f"e{row}", text) if isinstance(text, str) else text for row, text in enumerate(texts)]
    return find_neighbours(examples, retriever, **{"evaluation": (), **options})


def texts_of(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.text for candidate in candidates]


CORPUS = ["aab", "abb", "aaab", "zz", "ab", "Ab!", "aabb", "b"]
# cosines to "ab" = (1, 1)/sqrt 2: aab and abb 3/sqrt 10 = 0.949, aaab 4/sqrt 20 = 0.894, b 0.707, zz 0


def test_candidates_are_the_nearest_texts_best_first_ties_by_id() -> None:
    (row,) = neighbours_of(CORPUS, "ab", k=4).candidates
    assert texts_of(row) == ["aabb", "aab", "abb", "aaab"]
    assert [candidate.id for candidate in row] == ["n6", "n0", "n1", "n2"]
    assert [c.score for c in row] == pytest.approx([1, 3 / 10**0.5, 3 / 10**0.5, 4 / 20**0.5], abs=1e-5)
    assert {(c.owner, c.text_pair, c.source) for c in row} == {("e0", None, "neighbours")}


def test_a_sample_is_drawn_from_the_k_nearest_of_each_text_best_first() -> None:
    corpus = [f"a{'b' * number}" for number in range(2, 30)]
    whole = neighbours_of(corpus, *["ab"] * 40, k=8).candidates
    drawn = neighbours_of(corpus, *["ab"] * 40, k=8, sample=3).candidates
    places = [[texts_of(whole[0]).index(text) for text in texts_of(row)] for row in drawn]
    assert all(len(row) == 3 and row == sorted(row) for row in places)
    assert {place for row in places for place in row} == set(range(8))
    assert neighbours_of(corpus, *["ab"] * 40, k=8, sample=3).candidates == drawn
    assert neighbours_of(corpus, *["ab"] * 40, k=8, sample=3, seed=1).candidates != drawn
    assert neighbours_of(corpus, *["ab"] * 40, k=8, sample=8).candidates == whole


def test_the_example_itself_is_left_out_by_text_though_it_is_not_the_nearest() -> None:
    corpus = ["aabb", "abab?", "AB.", "abb"]  # the first two tie with the example's own text and come before it
    assert texts_of(neighbours_of(corpus, "ab", k=3).candidates[0]) == ["aabb", "abab?", "abb"]
    assert "AB." in texts_of(neighbours_of(corpus, "ba", k=3).candidates[0])  # another text with the same vector


def test_duplicates_in_all_but_punctuation_come_once() -> None:
    result = neighbours_of(["abb", "ABB", "a b-b!", "b"], "ab", k=3)
    assert (texts_of(result.candidates[0]), result.short) == (["abb", "b"], 1)


def test_the_search_goes_deeper_until_k_are_found_but_no_deeper_than_256() -> None:
    crowd = [f"ab{'.' * number}" for number in range(100)]
    retriever = Letters([*crowd, "abb", "b"])
    assert texts_of(neighbours_of(retriever, "ab", k=2).candidates[0]) == ["abb", "b"]
    assert retriever.depths == [10, 20, 40, 80, 102]
    too_deep = neighbours_of([f"ab{'.' * number}" for number in range(300)] + ["abb"], "ab", k=1)
    assert (too_deep.candidates, too_deep.short) == ([[]], 1)


def test_only_queries_that_are_short_are_searched_again() -> None:
    retriever = Letters([*(f"ab{'.' * number}" for number in range(20)), "abb", "yz", "yyz"])
    asked: list[int] = []
    search = retriever.search
    retriever.search = lambda texts, k, **more: (asked.append(len(texts)), search(texts, k, **more))[1]  # type: ignore
    assert [len(row) for row in neighbours_of(retriever, "ab", "yyyz", k=2).candidates] == [2, 2]
    assert asked == [2, 1, 1]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, ["aabb", "aab", "abb", "aaab", "b", "zz"]),
        ({"min_distance": 0.02}, ["aab", "abb", "aaab", "b", "zz"]),
        ({"max_distance": 0.2}, ["aabb", "aab", "abb", "aaab"]),
        ({"min_distance": 0.08, "max_distance": 0.5}, ["aaab", "b"]),
    ],
)
@pytest.mark.parametrize("queries", ["example", "task"])
def test_distance_bounds_hold(bounds: dict[str, float], expected: list[str], queries: str) -> None:
    assert texts_of(neighbours_of(CORPUS, "ab", k=8, queries=queries, **bounds).candidates[0]) == expected


# --- evaluation texts


def test_texts_equal_to_evaluation_texts_never_come_back() -> None:
    evaluation = ["A a b", "aabb?", "not in the corpus"]
    result = neighbours_of([*CORPUS, "AAB?"], "ab", k=4, evaluation=evaluation, near_copy=1.0)
    assert texts_of(result.candidates[0]) == ["abb", "aaab", "b", "zz"]
    assert (result.excluded_evaluation_texts, result.excluded_near_copies) == (2, 0)
    assert result.withheld == (WithheldText("aab", "A a b", None), WithheldText("aabb", "aabb?", None))
    without = neighbours_of(CORPUS, "ab", k=4)
    assert texts_of(without.candidates[0]) == ["aabb", "aab", "abb", "aaab"]
    assert (without.excluded_evaluation_texts, without.withheld) == (0, ())


def test_near_copies_of_evaluation_texts_never_come_back() -> None:
    # to "aaab": aab 7/sqrt 50 = 0.990, aabb 0.894; "ab" itself 0.894
    result = neighbours_of(CORPUS, "ab", k=4, evaluation=["aaabbb", "aaab?"], near_copy=0.98)
    assert texts_of(result.candidates[0]) == ["abb", "b", "zz"]  # aabb copies aaabbb, aab copies aaab?, aaab is equal
    assert (result.excluded_evaluation_texts, result.excluded_near_copies) == (1, 2)
    assert result.withheld == (
        WithheldText("aab", "aaab?", pytest.approx(0.98995, abs=1e-4)),
        WithheldText("aabb", "aaabbb", pytest.approx(1.0)),
        WithheldText("aaab", "aaab?", pytest.approx(1.0)),
    )
    higher = neighbours_of(CORPUS, "ab", k=4, evaluation=["aaab?"], near_copy=0.995)  # aab is below it
    assert texts_of(higher.candidates[0]) == ["aabb", "aab", "abb", "b"]


def test_all_copies_are_found_however_many_there_are() -> None:
    corpus = [f"{'a' * (100 + number)}b" for number in range(100)] + ["ab"]  # all 0.99995 to each other
    result = neighbours_of(corpus, "aaab", k=3, evaluation=["a" * 150 + "b"], near_copy=0.999)
    assert texts_of(result.candidates[0]) == ["ab"]
    assert result.excluded_near_copies == 99
    assert result.excluded_evaluation_texts == 1
    assert len(result.withheld) == 100


def test_near_copies_are_withheld_for_averages_units_and_both_sides() -> None:
    pair = Example("p", "ab", "yz", 0)
    for options in (
        {"queries": "label"},
        {"queries": "task"},
        {"queries": "mix"},
        {"pairs": "unit"},
        {"pairs": "both"},
    ):
        given = {"k": 4, "evaluation": ["aaabb"], "near_copy": 0.97, **options}
        corpus = ["aab", "abb", "yyz", "yyzz", "abbb", "yzzz"]  # to aaabb: aab 0.992
        result = neighbours_of(corpus, pair, **given)
        assert result.excluded_near_copies == 1, options
        assert not any("aab" in (c.text, c.text_pair) for c in result.candidates[0]), options
        assert any(
            "aab" in (c.text, c.text_pair)
            for c in neighbours_of(corpus, pair, **{**given, "evaluation": ()}).candidates[0]
        )


def test_sentences_of_evaluation_documents_are_kept_out_of_sentence_search() -> None:
    given = {"k": 2, "evaluation": ["Aab. Yyyyyyz."], "unit": "sentence"}
    assert texts_of(neighbours_of(["aab", "abb"], "ab", **given).candidates[0]) == ["abb"]
    assert (
        len(neighbours_of(["aab", "abb"], "ab", **{**given, "unit": "text"}).candidates[0]) == 2
    )  # compared as a whole text


@pytest.mark.parametrize("value", [0.0, -0.1, 1.01, 95])
def test_a_near_copy_threshold_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(RecipeError, match=re.escape(f"near_copy is {value}")):
        neighbours_of(CORPUS, "ab", k=1, near_copy=value)


# --- queries


def test_a_label_average_deals_the_texts_nearest_to_a_class_to_its_examples() -> None:
    corpus = ["aaab", "abbb", "yz", "aabbbb", "aaaabb", "yyz", "yzz"]
    examples = [Example("0", "aab", None, 1), Example("1", "yyzz", None, 0), Example("2", "abb", None, 1)]
    result = neighbours_of(corpus, *examples, k=2, queries="label")
    assert [texts_of(row) for row in result.candidates] == [["aaaabb", "aaab"], ["yz", "yyz"], ["aabbbb", "abbb"]]
    assert result.candidates[0][1].score == pytest.approx(7 / 50**0.5, abs=1e-5)  # to the example, not to the average


def test_a_task_average_ignores_labels() -> None:
    corpus = ["aaab", "abbb", "yz", "aabbbb", "aaaabb", "zz", "yyyyz"]
    examples = [Example("0", "aab"), Example("1", "yyzz", None, 2.5), Example("2", "abb")]
    rows = neighbours_of(corpus, *examples, k=1, queries="task").candidates
    mean = Letters([]).encode(["aab", "yyzz", "abb"]).mean(axis=0)
    nearest = np.argsort(-(Letters([]).encode(corpus) @ mean), kind="stable")[:3]
    assert sorted(c.text for row in rows for c in row) == sorted(corpus[id_] for id_ in nearest)


def test_a_dealt_text_goes_to_the_most_similar_owner_that_has_room() -> None:
    corpus = ["ab", "aabb.b", "aaaab"]  # all three are most like the first example
    examples = [Example("0", "aaabb", None, 0), Example("1", "az", None, 0)]
    rows = [texts_of(row) for row in neighbours_of(corpus, *examples, k=2, queries="label").candidates]
    assert rows == [["ab", "aaaab"], ["aabb.b"]]  # to the mean 0.83, 0.91 and 0.74: for the last the first has no room
    assert neighbours_of(corpus, *examples, k=3, queries="label").candidates[1] == []  # with room for all


def test_no_example_is_dealt_its_own_text() -> None:
    corpus = ["Aab!", "aaab", "Abb!", "abbb"]
    examples = [Example("0", "aab", None, 0), Example("1", "abb", None, 0)]
    rows = [texts_of(row) for row in neighbours_of(corpus, *examples, k=2, queries="label").candidates]
    assert rows == [["aaab", "Abb!"], ["abbb", "Aab!"]]  # the other example's text is allowed


def test_an_average_is_searched_deeper_for_what_is_withheld() -> None:
    retriever = Letters([*(f"ab{'.' * number}" for number in range(30)), "abb", "aab", "bz"])
    result = neighbours_of(retriever, "ab", k=2, queries="task", evaluation=["a b"], near_copy=1.0)
    assert (texts_of(result.candidates[0]), result.short) == (["abb", "aab"], 0)
    assert retriever.depths == [10, 20, 33]


def test_a_mix_is_half_the_example_s_own_neighbours_half_its_class_s_and_no_text_twice() -> None:
    corpus = ["aaab", "aab", "abbb", "abb", "aabbb", "aaabb", "yz"]
    examples = [Example("0", "aaaab", None, 0), Example("1", "abbbb", None, 0)]
    reports: list[tuple[int, int | None]] = []
    mixed = neighbours_of(
        corpus, *examples, k=3, queries="mix", progress=lambda done, total: reports.append((done, total))
    )
    own = neighbours_of(corpus, *examples, k=2, queries="example")
    for row, near in zip(mixed.candidates, own.candidates, strict=True):
        assert set(texts_of(near)) < set(texts_of(row))
        assert len(set(texts_of(row))) == len(row) == 3
    assert reports == [(1, 4), (2, 4), (4, 4)]


def test_an_average_is_searched_deeper_for_what_no_example_may_have() -> None:
    # alone in its class, its average is itself, so the nearest texts are those of its own search
    result = neighbours_of(["aaab", "aabb", "abbb", "ac"], Example("0", "aab", None, 0), k=4, queries="mix")
    assert (texts_of(result.candidates[0]), result.short) == (["aaab", "aabb", "abbb", "ac"], 0)
    bounds = {"queries": "task", "min_distance": 0.02}
    crowd = [f"{'a' * number}{'b' * number}" for number in range(2, 30)]  # all at distance 0
    assert texts_of(neighbours_of([*crowd, "aab"], "ab", k=1, **bounds).candidates[0]) == ["aab"]


@pytest.mark.parametrize("queries", ["label", "mix"])
def test_label_averages_need_labels(queries: str) -> None:
    with pytest.raises(DataError, match=r"'e0' has no label.*use 'example' or 'task'"):
        neighbours_of(CORPUS, "ab", k=2, queries=queries)


# --- units of text


def test_a_neighbour_of_a_sentence_replaces_it_within_the_document() -> None:
    document = "Aab.  Yyyyyyz!"
    rows = neighbours_of(["aaab", "aabb", "yyyz", "yyz"], document, k=3, unit="sentence").candidates
    assert [(c.id, c.text) for c in rows[0]] == [
        ("n0-s0", "aaab  Yyyyyyz!"),  # 0.990, 0.988, 0.956
        ("n2-s1", "Aab.  yyyz"),
        ("n3-s1", "Aab.  yyz"),
    ]
    whole = neighbours_of(["aaab", "aabb", "yyyz", "yyz"], document, k=1).candidates
    assert texts_of(whole[0]) == ["yyyz"]  # the document as a whole has the vector of its longest sentence


def test_texts_of_one_sentence_are_asked_for_alike_with_either_unit() -> None:
    assert neighbours_of(CORPUS, "ab", k=4, unit="sentence").candidates == neighbours_of(CORPUS, "ab", k=4).candidates


# --- pairs


def test_pairs_get_half_from_each_side_interleaved_by_score() -> None:
    corpus = ["aab", "abb", "yyz", "yyyz", "b"]
    rows = neighbours_of(corpus, Example("p", "ab", "yz"), k=3).candidates
    assert [(c.id, c.text, c.text_pair) for c in rows[0]] == [
        ("n0-text", "aab", "yz"),
        ("n1-text", "abb", "yz"),
        ("n2-pair", "ab", "yyz"),
    ]
    four = neighbours_of(corpus, Example("p", "ab", "yyyyyz"), k=4).candidates[0]
    assert [c.id for c in four] == ["n3-pair", "n2-pair", "n0-text", "n1-text"]  # 0.992, 0.965, 0.949
    assert [c.id for c in neighbours_of(corpus, Example("p", "ab", "yz"), k=1).candidates[0]] == ["n0-text"]


def test_neither_side_of_a_pair_comes_back() -> None:
    pair = Example("p", "ab", "aab")
    rows = neighbours_of(["ab", "aab", "abb", "b"], pair, k=4).candidates
    assert [c.id for c in rows[0]] == ["n2-text", "n2-pair", "n3-text", "n3-pair"]
    assert {
        (c.text, c.text_pair) for c in neighbours_of(["ab", "aab", "abb", "b"], pair, k=4, pairs="unit").candidates[0]
    } == {
        ("abb", "b"),
        ("b", "abb"),
    }


def test_a_unit_is_two_neighbours_that_keep_the_relation_of_the_sides() -> None:
    corpus = ["abcc", "abdd", "abbd"]  # the last two 4/sqrt 18 to abd; to abcc 2/6 and 3/6
    (near,) = neighbours_of(corpus, Example("p", "abc", "abd"), k=1, pairs="unit").candidates[0]  # the sides: 2/3
    assert (near.id, near.text, near.text_pair) == ("n0-n2", "abcc", "abbd")
    assert near.score == pytest.approx(4 / 18**0.5, abs=1e-5)
    (far,) = neighbours_of(corpus, Example("p", "abccc", "abddd"), k=1, pairs="unit").candidates[0]  # 2/11
    assert far.id == "n0-n1"


def test_both_is_half_each_half_units() -> None:
    rows = neighbours_of(["aab", "abb", "yyz", "yzz"], Example("p", "ab", "yz"), k=3, pairs="both").candidates[0]
    assert sorted(c.id for c in rows) == ["n0-n2", "n0-text", "n2-pair"]


@pytest.mark.parametrize("pairs", ["unit", "both"])
def test_units_need_pairs(pairs: str) -> None:
    with pytest.raises(RecipeError, match="'e0' is a single text"):
        neighbours_of(CORPUS, "ab", k=2, pairs=pairs)


# --- choice


def test_diversity_passes_over_texts_like_one_that_was_picked() -> None:
    corpus = ["aaab", "aaaabb", "aaaaaab", "abz"]  # to aab: 0.990, 1.0, 0.956, 0.775
    assert texts_of(neighbours_of(corpus, "aab", k=2).candidates[0]) == ["aaaabb", "aaab"]
    assert texts_of(neighbours_of(corpus, "aab", k=2, diversity=0.6).candidates[0]) == ["aaaabb", "abz"]
    averaged = neighbours_of(corpus, "aab", k=2, diversity=0.6, queries="task").candidates
    assert texts_of(averaged[0]) == ["aaaabb", "abz"]


def test_a_unique_text_goes_to_its_best_owner_only() -> None:
    corpus = ["aaab", "aaabb", "abbb", "aabb"]
    shared = neighbours_of(corpus, "aab", "ab", k=2).candidates
    assert [texts_of(row) for row in shared] == [["aaabb", "aaab"], ["aabb", "aaabb"]]  # aaabb 0.992 and 0.981
    result = neighbours_of(corpus, "aab", "ab", k=2, unique=True)
    assert [texts_of(row) for row in result.candidates] == [["aaabb", "aaab"], ["aabb", "abbb"]]
    assert result.short == 0


@pytest.mark.parametrize(
    "options", [{"queries": "mix"}, {"diversity": 0.3}, {"queries": "label"}, {"unit": "sentence"}]
)
def test_no_text_has_two_owners_whatever_the_strategy(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    corpus = ["".join(rng.choice(list("abcde"), size=6)) for _ in range(80)]
    examples = [Example(str(row), "".join(rng.choice(list("abcde"), size=7)), None, row % 2) for row in range(8)]
    result = neighbours_of(corpus, *examples, k=4, unique=True, **options)
    given = [c.text for row in result.candidates for c in row]
    assert len(given) == len(set(given)) > 24
    assert all(len(row) <= 4 for row in result.candidates)
    again = neighbours_of(corpus, *examples, k=4, unique=True, **options)
    assert again.candidates == result.candidates


# --- lexical indexes


def test_a_lexical_index_returns_texts_with_common_words_only() -> None:
    corpus = ["the red cat", "a dog", "red cat here", "blue"]
    result = neighbours_of(Words(corpus), "the red cat sat", k=4)
    assert [(c.text, c.score) for c in result.candidates[0]] == [("the red cat", 3.0), ("red cat here", 2.0)]
    assert result.short == 1


def test_near_copies_in_a_lexical_index_are_recognised_by_their_words() -> None:
    corpus = ["what is the capital of france now", "what is the capital of spain", "capital"]
    evaluation = ["What is the capital of France ?"]  # 6 of 7 words; 5 of 7
    given = {"k": 3, "evaluation": evaluation}
    result = neighbours_of(Words(corpus), "capital of spain", **given)
    assert texts_of(result.candidates[0]) == ["what is the capital of spain", "capital"]
    assert result.withheld == (WithheldText(corpus[0], evaluation[0], pytest.approx(6 / 7)),)
    equal_only = neighbours_of(Words(corpus), "capital of spain", near_copy=1.0, **given)
    assert len(equal_only.candidates[0]) == 3


def test_a_lexical_average_is_dealt_in_turn_in_an_order_drawn_from_the_seed() -> None:
    corpus = [f"word w{number}" for number in range(12)]
    examples = [Example(str(row), f"word x{row}", None, 0) for row in range(4)]
    rows = neighbours_of(Words(corpus), *examples, k=3, queries="label", seed=1).candidates
    assert sorted(int(c.id[1:]) for row in rows for c in row) == list(range(12))
    assert [sorted(int(c.id[1:]) // 4 for c in row) for row in rows] == [[0, 1, 2]] * 4  # one of every round
    assert rows == neighbours_of(Words(corpus), *examples, k=3, queries="label", seed=1).candidates
    assert any(
        rows != neighbours_of(Words(corpus), *examples, k=3, queries="label", seed=s).candidates for s in (2, 3, 4)
    )


def test_pairs_in_a_lexical_index_are_combined_by_rank() -> None:
    corpus = ["red cat big", "red sun", "blue dog big", "dog"]
    rows = neighbours_of(Words(corpus), Example("p", "red cat", "blue dog"), k=2, pairs="unit").candidates
    assert [(c.text, c.text_pair, c.score) for c in rows[0]] == [
        ("red cat big", "blue dog big", 2.0),
        ("red sun", "dog", 1.0),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diversity": 0.2}, "diversity"),
        ({"min_distance": 0.1}, "min_distance"),
        ({"max_distance": 1.0}, "max_distance"),
    ],
)
def test_options_that_need_cosines_are_refused_for_a_lexical_index(options: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=f"{message}.*lexical index words"):
        neighbours_of(Words(CORPUS), "ab", k=1, **options)


# --- blocks, progress, mistakes


def test_block_boundaries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    corpus = ["".join(rng.choice(list("abcde"), size=6)) for _ in range(60)]
    examples = [Example(str(row), "".join(rng.choice(list("abcde"), size=7)), "ade", row % 2) for row in range(5)]
    option_sets: list[dict[str, Any]] = [{}, {"unique": True}, {"pairs": "both"}, {"diversity": 0.4}]
    given = {"k": 3, "evaluation": [corpus[0], corpus[1]]}
    whole = [neighbours_of(corpus, *examples, **given, **options) for options in option_sets]
    for name in ("_BLOCK", "_BLOCK_WITH_VECTORS"):
        monkeypatch.setattr(strategies, name, 2)
    monkeypatch.setattr(near_copies, "_BLOCK", 1)
    assert [neighbours_of(corpus, *examples, **given, **options) for options in option_sets] == whole


@pytest.mark.parametrize(
    ("options", "total"),
    [({}, 9), ({"queries": "mix"}, 16), ({"queries": "task"}, 9), ({"pairs": "both"}, 16), ({"near_copy": 1.0}, 7)],
)
def test_progress_counts_evaluation_texts_and_examples_smoothly_over_all_blocks(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], total: int
) -> None:
    for name in ("_BLOCK", "_BLOCK_WITH_VECTORS"):
        monkeypatch.setattr(strategies, name, 3)
    monkeypatch.setattr(near_copies, "_BLOCK", 1)
    rng = np.random.default_rng(1)
    corpus = ["".join(rng.choice(list("abcde"), size=6)) for _ in range(60)]
    examples = [Example(str(row), "".join(rng.choice(list("abcde"), size=7)), "ade", row % 2) for row in range(7)]
    given = {"k": 3, "evaluation": [corpus[0], corpus[1]], **options}
    reports: list[tuple[int, int | None]] = []
    watched = neighbours_of(corpus, *examples, **given, progress=lambda done, all_: reports.append((done, all_)))
    done = [number for number, _ in reports]
    assert {all_ for _, all_ in reports} == {total}
    assert done == sorted(set(done))
    assert done[-1] == total
    if "queries" not in options:  # an average is one query of many examples
        assert done == list(range(1, total + 1))
    assert watched == neighbours_of(corpus, *examples, **given)


def test_without_examples_there_are_no_neighbours() -> None:
    for queries in ("example", "label", "task", "mix"):
        assert find_neighbours([], Letters(CORPUS), k=3, evaluation=(), queries=queries) == Neighbours.none(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"min_distance": 0.5, "max_distance": 0.4}, "min_distance 0.5, max_distance 0.4"),
        ({"diversity": 1.5}, "diversity is 1.5"),
        ({"queries": "lable"}, "queries is 'lable'; did you mean 'label'"),
        ({"unit": "word"}, "unit is 'word'"),
        ({"pairs": "all"}, "pairs is 'all'"),
        ({"pairs": "unit", "queries": "task"}, "pairs 'unit' goes with queries 'example'"),
        ({"pairs": "both", "diversity": 0.1}, "diversity 0 only"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        neighbours_of(CORPUS, "ab", **{"k": 1, **options})


CORPUS_IN_WORDS = [
    "Bake the bread for an hour.",
    "Which city is France's capital?",
    "He plays the violin.",
    "Rain is likely.",
    "Tell me the capital city of France.",
]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> DenseRetriever:
    folder = tmp_path_factory.mktemp("real")
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in CORPUS_IN_WORDS))
    encoder = SentenceEncoder.load()
    build_dense(folder / "index", CorpusSource(str(path)), encoder)
    return DenseRetriever(Index.open(folder / "index"), encoder)


EXAMPLES = [
    Example("0", "What is the capital of France?", None, 0),
    Example("1", "Tomorrow's weather forecast", None, 1),
]


def test_the_real_retriever_finds_paraphrases(real: DenseRetriever) -> None:
    result = find_neighbours(EXAMPLES, real, k=1, evaluation=())
    assert [texts_of(row) for row in result.candidates] == [[CORPUS_IN_WORDS[1]], [CORPUS_IN_WORDS[3]]]


def test_the_real_retriever_withholds_a_paraphrase_of_a_test_question(real: DenseRetriever) -> None:
    result = find_neighbours(EXAMPLES, real, k=1, evaluation=["which city is the capital of france ?"])
    assert texts_of(result.candidates[0]) == [CORPUS_IN_WORDS[4]]
    assert result.excluded_near_copies == 1
    assert result.withheld[0].text == CORPUS_IN_WORDS[1]


@pytest.mark.parametrize("options", [{"queries": "label"}, {"queries": "mix"}, {"diversity": 0.3}, {"unique": True}])
def test_every_strategy_works_with_the_real_retriever(real: DenseRetriever, options: dict[str, Any]) -> None:
    rows = find_neighbours(EXAMPLES, real, k=2, evaluation=(), **options).candidates
    assert [len(row) for row in rows] == [2, 2]
    assert {CORPUS_IN_WORDS[1], CORPUS_IN_WORDS[4]} >= {rows[0][0].text}
    assert rows[1][0].text == CORPUS_IN_WORDS[3]
