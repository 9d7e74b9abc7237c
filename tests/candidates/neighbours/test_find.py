"""Neighbours are the nearest texts that may come back, asked for and chosen as the options say, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augkd.candidates.neighbours import choosing, near_copies
from augkd.candidates.neighbours.find import Candidate, Found, Withheld, find_neighbours, teacher_distance
from augkd.data.corpus import CorpusSource
from augkd.data.task import Example
from augkd.errors import DataError, RecipeError
from augkd.retrieval.dense.builder import build_index
from augkd.retrieval.dense.retriever import DenseRetriever
from augkd.retrieval.dense.search import Index
from augkd.retrieval.encoders.sentence import SentenceEncoder
from augkd.retrieval.retriever import Hits, best_first


class Letters:
    """Brute force over unit vectors of letter counts, whatever the case: cosines can be done by hand."""

    folder = Path("letters")
    manifest: Mapping[str, Any] = {}
    bounded = True

    def __init__(self, corpus: Sequence[str]) -> None:
        self.corpus = list(corpus)
        self.depths: list[int] = []

    def __len__(self) -> int:
        return len(self.corpus)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.array([[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts], dtype=float)
        counts = counts.reshape(-1, 26)
        return (counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def search(self, texts: Sequence[str], k: int, *, vectors: bool = False) -> Hits:
        return self._nearest(self.encode(texts), k, vectors)

    def search_average(self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False) -> Hits:
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
    """A lexical index in small: a score is the number of common words."""

    folder = Path("words")
    bounded = False

    def search(self, texts: Sequence[str], k: int, *, vectors: bool = False) -> Hits:
        return self._common([set(re.findall(r"\w+", text.lower())) for text in texts], k)

    def search_average(self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False) -> Hits:
        return self._common([set(re.findall(r"\w+", " ".join(group).lower())) for group in groups], k)

    def _common(self, queries: Sequence[set[str]], k: int) -> Hits:
        stored = [set(re.findall(r"\w+", text.lower())) for text in self.corpus]
        scores = np.array([[len(words & query) for words in stored] for query in queries], dtype=np.float32)
        return best_first(scores, np.tile(np.arange(len(stored)), (len(queries), 1)), None, k)


def found(corpus: Sequence[str] | Letters, *examples: str | Example, **options: Any) -> Found:
    retriever = corpus if isinstance(corpus, Letters) else Letters(corpus)
    made = [Example(f"e{at}", text) if isinstance(text, str) else text for at, text in enumerate(examples)]
    return find_neighbours(made, retriever, **{"evaluation": (), **options})


def texts_of(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.text for candidate in candidates]


CORPUS = ["aab", "abb", "aaab", "zz", "ab", "Ab!", "aabb", "b"]
# cosines to "ab" = (1, 1)/sqrt 2: aab and abb 3/sqrt 10 = 0.949, aaab 4/sqrt 20 = 0.894, b 0.707, zz 0


def test_candidates_are_the_nearest_texts_best_first_ties_by_id() -> None:
    (row,) = found(CORPUS, "ab", k=4).candidates
    assert texts_of(row) == ["aabb", "aab", "abb", "aaab"]
    assert [candidate.id for candidate in row] == ["n6", "n0", "n1", "n2"]
    assert [c.score for c in row] == pytest.approx([1, 3 / 10**0.5, 3 / 10**0.5, 4 / 20**0.5], abs=1e-5)
    assert {(c.owner, c.text_pair, c.source) for c in row} == {("e0", None, "neighbours")}


def test_the_example_itself_is_left_out_by_text_though_it_is_not_the_nearest() -> None:
    corpus = ["aabb", "abab?", "AB.", "abb"]  # the first two tie with, and stand before, the example's own text
    assert texts_of(found(corpus, "ab", k=3).candidates[0]) == ["aabb", "abab?", "abb"]
    assert "AB." in texts_of(found(corpus, "ba", k=3).candidates[0])  # the twin: another text, the same vector


def test_duplicates_in_all_but_punctuation_come_once() -> None:
    some = found(["abb", "ABB", "a b-b!", "b"], "ab", k=3)
    assert (texts_of(some.candidates[0]), some.short) == (["abb", "b"], 1)


def test_search_goes_deeper_until_k_are_found_but_no_deeper_than_256() -> None:
    crowd = [f"ab{'.' * number}" for number in range(100)]
    retriever = Letters([*crowd, "abb", "b"])
    assert texts_of(found(retriever, "ab", k=2).candidates[0]) == ["abb", "b"]
    assert retriever.depths == [10, 20, 40, 80, 102]
    too_deep = found([f"ab{'.' * number}" for number in range(300)] + ["abb"], "ab", k=1)
    assert (too_deep.candidates, too_deep.short) == ([[]], 1)


def test_only_the_queries_that_are_short_are_asked_again() -> None:
    retriever = Letters([*(f"ab{'.' * number}" for number in range(20)), "abb", "yz", "yyz"])
    asked: list[int] = []
    search = retriever.search
    retriever.search = lambda texts, k, **more: (asked.append(len(texts)), search(texts, k, **more))[1]  # type: ignore
    assert [len(row) for row in found(retriever, "ab", "yyyz", k=2).candidates] == [2, 2]
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
    assert texts_of(found(CORPUS, "ab", k=8, queries=queries, **bounds).candidates[0]) == expected


# --- evaluation texts


def test_texts_equal_to_evaluation_texts_never_come_back() -> None:
    evaluation = ["A a b", "aabb?", "not in the corpus"]
    some = found([*CORPUS, "AAB?"], "ab", k=4, evaluation=evaluation, near_copy=1.0)
    assert texts_of(some.candidates[0]) == ["abb", "aaab", "b", "zz"]
    assert (some.excluded_evaluation_texts, some.excluded_near_copies) == (2, 0)
    assert some.withheld == (Withheld("aab", "A a b", None), Withheld("aabb", "aabb?", None))
    without = found(CORPUS, "ab", k=4)
    assert texts_of(without.candidates[0]) == ["aabb", "aab", "abb", "aaab"]
    assert (without.excluded_evaluation_texts, without.withheld) == (0, ())


def test_near_copies_of_evaluation_texts_never_come_back() -> None:
    # to "aaab": aab 7/sqrt 50 = 0.990, aabb 0.894; "ab" itself 0.894
    some = found(CORPUS, "ab", k=4, evaluation=["aaabbb", "aaab?"], near_copy=0.98)
    assert texts_of(some.candidates[0]) == ["abb", "b", "zz"]  # aabb copies aaabbb, aab copies aaab?, aaab is equal
    assert (some.excluded_evaluation_texts, some.excluded_near_copies) == (1, 2)
    assert some.withheld == (
        Withheld("aab", "aaab?", pytest.approx(0.98995, abs=1e-4)),
        Withheld("aabb", "aaabbb", pytest.approx(1.0)),
        Withheld("aaab", "aaab?", pytest.approx(1.0)),
    )
    higher = found(CORPUS, "ab", k=4, evaluation=["aaab?"], near_copy=0.995)  # the twin
    assert texts_of(higher.candidates[0]) == ["aabb", "aab", "abb", "b"]


def test_all_copies_are_found_however_many_there_are() -> None:
    corpus = [f"{'a' * (100 + number)}b" for number in range(100)] + ["ab"]  # all 0.99995 to each other
    some = found(corpus, "aaab", k=3, evaluation=["a" * 150 + "b"], near_copy=0.999)
    assert texts_of(some.candidates[0]) == ["ab"]
    assert some.excluded_near_copies == 99
    assert some.excluded_evaluation_texts == 1
    assert len(some.withheld) == 100


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
        some = found(corpus, pair, **given)
        assert some.excluded_near_copies == 1, options
        assert not any("aab" in (c.text, c.text_pair) for c in some.candidates[0]), options
        assert any(
            "aab" in (c.text, c.text_pair) for c in found(corpus, pair, **{**given, "evaluation": ()}).candidates[0]
        )


def test_sentences_of_evaluation_documents_are_kept_out_of_sentence_search() -> None:
    given = {"k": 2, "evaluation": ["Aab. Yyyyyyz."], "unit": "sentence"}
    assert texts_of(found(["aab", "abb"], "ab", **given).candidates[0]) == ["abb"]
    assert len(found(["aab", "abb"], "ab", **{**given, "unit": "text"}).candidates[0]) == 2  # the twin


@pytest.mark.parametrize("value", [0.0, -0.1, 1.01, 95])
def test_a_near_copy_threshold_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(RecipeError, match=re.escape(f"near_copy is {value}")):
        found(CORPUS, "ab", k=1, near_copy=value)


# --- queries


def test_a_label_average_deals_the_texts_near_to_a_class_to_its_examples() -> None:
    corpus = ["aaab", "abbb", "yz", "aabbbb", "aaaabb", "yyz", "yzz"]
    examples = [Example("0", "aab", None, 1), Example("1", "yyzz", None, 0), Example("2", "abb", None, 1)]
    some = found(corpus, *examples, k=2, queries="label")
    assert [texts_of(row) for row in some.candidates] == [["aaaabb", "aaab"], ["yz", "yyz"], ["aabbbb", "abbb"]]
    assert some.candidates[0][1].score == pytest.approx(7 / 50**0.5, abs=1e-5)  # to the example, not to the average


def test_a_task_average_does_not_look_at_labels() -> None:
    corpus = ["aaab", "abbb", "yz", "aabbbb", "aaaabb", "zz", "yyyyz"]
    examples = [Example("0", "aab"), Example("1", "yyzz", None, 2.5), Example("2", "abb")]
    rows = found(corpus, *examples, k=1, queries="task").candidates
    mean = Letters([]).encode(["aab", "yyzz", "abb"]).mean(axis=0)
    nearest = np.argsort(-(Letters([]).encode(corpus) @ mean), kind="stable")[:3]
    assert sorted(c.text for row in rows for c in row) == sorted(corpus[at] for at in nearest)


def test_a_dealt_text_goes_to_the_most_similar_owner_that_has_room() -> None:
    corpus = ["ab", "aabb.b", "aaaab"]  # all three are most like the first example
    examples = [Example("0", "aaabb", None, 0), Example("1", "az", None, 0)]
    rows = [texts_of(row) for row in found(corpus, *examples, k=2, queries="label").candidates]
    assert rows == [["ab", "aaaab"], ["aabb.b"]]  # to the mean 0.83, 0.91 and 0.74: the last finds the first full
    assert found(corpus, *examples, k=3, queries="label").candidates[1] == []  # the twin: room for all


def test_no_example_is_dealt_its_own_text() -> None:
    corpus = ["Aab!", "aaab", "Abb!", "abbb"]
    examples = [Example("0", "aab", None, 0), Example("1", "abb", None, 0)]
    rows = [texts_of(row) for row in found(corpus, *examples, k=2, queries="label").candidates]
    assert rows == [["aaab", "Abb!"], ["abbb", "Aab!"]]  # the other's is as good as any


def test_an_average_goes_deeper_for_what_is_withheld() -> None:
    retriever = Letters([*(f"ab{'.' * number}" for number in range(30)), "abb", "aab", "bz"])
    some = found(retriever, "ab", k=2, queries="task", evaluation=["a b"], near_copy=1.0)
    assert (texts_of(some.candidates[0]), some.short) == (["abb", "aab"], 0)
    assert retriever.depths == [10, 20, 33]


def test_a_mix_is_half_the_examples_own_half_its_classs_and_no_text_twice() -> None:
    corpus = ["aaab", "aab", "abbb", "abb", "aabbb", "aaabb", "yz"]
    examples = [Example("0", "aaaab", None, 0), Example("1", "abbbb", None, 0)]
    told: list[tuple[int, int | None]] = []
    mixed = found(corpus, *examples, k=3, queries="mix", progress=lambda done, total: told.append((done, total)))
    own = found(corpus, *examples, k=2, queries="example")
    for row, near in zip(mixed.candidates, own.candidates, strict=True):
        assert set(texts_of(near)) < set(texts_of(row))
        assert len(set(texts_of(row))) == len(row) == 3
    assert told == [(2, 4), (4, 4)]


def test_an_average_goes_deeper_for_what_nobody_may_have() -> None:
    # alone in its class: its average is itself, so the nearest texts are those it has from its own search
    some = found(["aaab", "aabb", "abbb", "ac"], Example("0", "aab", None, 0), k=4, queries="mix")
    assert (texts_of(some.candidates[0]), some.short) == (["aaab", "aabb", "abbb", "ac"], 0)
    bounds = {"queries": "task", "min_distance": 0.02}
    crowd = [f"{'a' * number}{'b' * number}" for number in range(2, 30)]  # all at distance 0
    assert texts_of(found([*crowd, "aab"], "ab", k=1, **bounds).candidates[0]) == ["aab"]


@pytest.mark.parametrize("queries", ["label", "mix"])
def test_label_averages_need_labels(queries: str) -> None:
    with pytest.raises(DataError, match=r"'e0' has no label.*use 'example' or 'task'"):
        found(CORPUS, "ab", k=2, queries=queries)


# --- units of text


def test_a_neighbour_of_a_sentence_replaces_it_within_the_document() -> None:
    document = "Aab.  Yyyyyyz!"
    rows = found(["aaab", "aabb", "yyyz", "yyz"], document, k=3, unit="sentence").candidates
    assert [(c.id, c.text) for c in rows[0]] == [
        ("n0-s0", "aaab  Yyyyyyz!"),  # 0.990, 0.988, 0.956
        ("n2-s1", "Aab.  yyyz"),
        ("n3-s1", "Aab.  yyz"),
    ]
    whole = found(["aaab", "aabb", "yyyz", "yyz"], document, k=1).candidates
    assert texts_of(whole[0]) == ["yyyz"]  # the twin: the document as a whole has the vector of its longest sentence


def test_texts_of_one_sentence_are_asked_for_alike_with_either_unit() -> None:
    assert found(CORPUS, "ab", k=4, unit="sentence").candidates == found(CORPUS, "ab", k=4).candidates


# --- pairs


def test_pairs_get_half_from_each_side_interleaved_by_score() -> None:
    corpus = ["aab", "abb", "yyz", "yyyz", "b"]
    rows = found(corpus, Example("p", "ab", "yz"), k=3).candidates
    assert [(c.id, c.text, c.text_pair) for c in rows[0]] == [
        ("n0-text", "aab", "yz"),
        ("n1-text", "abb", "yz"),
        ("n2-pair", "ab", "yyz"),
    ]
    four = found(corpus, Example("p", "ab", "yyyyyz"), k=4).candidates[0]
    assert [c.id for c in four] == ["n3-pair", "n2-pair", "n0-text", "n1-text"]  # 0.992, 0.965, 0.949
    assert [c.id for c in found(corpus, Example("p", "ab", "yz"), k=1).candidates[0]] == ["n0-text"]


def test_neither_side_of_a_pair_comes_back() -> None:
    pair = Example("p", "ab", "aab")
    rows = found(["ab", "aab", "abb", "b"], pair, k=4).candidates
    assert [c.id for c in rows[0]] == ["n2-text", "n2-pair", "n3-text", "n3-pair"]
    assert {(c.text, c.text_pair) for c in found(["ab", "aab", "abb", "b"], pair, k=4, pairs="unit").candidates[0]} == {
        ("abb", "b"),
        ("b", "abb"),
    }


def test_a_unit_is_two_neighbours_that_keep_the_relation_of_the_sides() -> None:
    corpus = ["abcc", "abdd", "abbd"]  # the last two 4/sqrt 18 to abd; to abcc 2/6 and 3/6
    (near,) = found(corpus, Example("p", "abc", "abd"), k=1, pairs="unit").candidates[0]  # the sides: 2/3
    assert (near.id, near.text, near.text_pair) == ("n0-n2", "abcc", "abbd")
    assert near.score == pytest.approx(4 / 18**0.5, abs=1e-5)
    (far,) = found(corpus, Example("p", "abccc", "abddd"), k=1, pairs="unit").candidates[0]  # the twin: 2/11
    assert far.id == "n0-n1"


def test_both_is_half_each_half_units() -> None:
    rows = found(["aab", "abb", "yyz", "yzz"], Example("p", "ab", "yz"), k=3, pairs="both").candidates[0]
    assert sorted(c.id for c in rows) == ["n0-n2", "n0-text", "n2-pair"]


@pytest.mark.parametrize("pairs", ["unit", "both"])
def test_units_need_pairs(pairs: str) -> None:
    with pytest.raises(RecipeError, match="'e0' is a single text"):
        found(CORPUS, "ab", k=2, pairs=pairs)


# --- choice


def test_diversity_passes_over_texts_like_one_that_was_picked() -> None:
    corpus = ["aaab", "aaaabb", "aaaaaab", "abz"]  # to aab: 0.990, 1.0, 0.956, 0.775
    assert texts_of(found(corpus, "aab", k=2).candidates[0]) == ["aaaabb", "aaab"]
    assert texts_of(found(corpus, "aab", k=2, diversity=0.6).candidates[0]) == ["aaaabb", "abz"]
    averaged = found(corpus, "aab", k=2, diversity=0.6, queries="task").candidates
    assert texts_of(averaged[0]) == ["aaaabb", "abz"]


def test_a_unique_text_goes_to_its_best_owner_only() -> None:
    corpus = ["aaab", "aaabb", "abbb", "aabb"]
    shared = found(corpus, "aab", "ab", k=2).candidates
    assert [texts_of(row) for row in shared] == [["aaabb", "aaab"], ["aabb", "aaabb"]]  # aaabb 0.992 and 0.981
    some = found(corpus, "aab", "ab", k=2, unique=True)
    assert [texts_of(row) for row in some.candidates] == [["aaabb", "aaab"], ["aabb", "abbb"]]
    assert some.short == 0


@pytest.mark.parametrize(
    "options", [{"queries": "mix"}, {"diversity": 0.3}, {"queries": "label"}, {"unit": "sentence"}]
)
def test_no_text_has_two_owners_whatever_the_strategy(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    corpus = ["".join(rng.choice(list("abcde"), size=6)) for _ in range(80)]
    examples = [Example(str(at), "".join(rng.choice(list("abcde"), size=7)), None, at % 2) for at in range(8)]
    some = found(corpus, *examples, k=4, unique=True, **options)
    given = [c.text for row in some.candidates for c in row]
    assert len(given) == len(set(given)) > 24
    assert all(len(row) <= 4 for row in some.candidates)
    again = found(corpus, *examples, k=4, unique=True, **options)
    assert again.candidates == some.candidates


# --- lexical indexes


def test_a_lexical_index_gives_texts_with_common_words_only() -> None:
    corpus = ["the red cat", "a dog", "red cat here", "blue"]
    some = found(Words(corpus), "the red cat sat", k=4)
    assert [(c.text, c.score) for c in some.candidates[0]] == [("the red cat", 3.0), ("red cat here", 2.0)]
    assert some.short == 1


def test_near_copies_of_a_lexical_index_are_told_by_their_words() -> None:
    corpus = ["what is the capital of france now", "what is the capital of spain", "capital"]
    evaluation = ["What is the capital of France ?"]  # 6 of 7 words; 5 of 7
    given = {"k": 3, "evaluation": evaluation}
    some = found(Words(corpus), "capital of spain", **given)
    assert texts_of(some.candidates[0]) == ["what is the capital of spain", "capital"]
    assert some.withheld == (Withheld(corpus[0], evaluation[0], pytest.approx(6 / 7)),)
    assert len(found(Words(corpus), "capital of spain", near_copy=1.0, **given).candidates[0]) == 3  # the twin


def test_a_lexical_average_is_dealt_round_in_an_order_of_the_seed() -> None:
    corpus = [f"word w{at}" for at in range(12)]
    examples = [Example(str(at), f"word x{at}", None, 0) for at in range(4)]
    rows = found(Words(corpus), *examples, k=3, queries="label", seed=1).candidates
    assert sorted(int(c.id[1:]) for row in rows for c in row) == list(range(12))
    assert [sorted(int(c.id[1:]) // 4 for c in row) for row in rows] == [[0, 1, 2]] * 4  # one of every round
    assert rows == found(Words(corpus), *examples, k=3, queries="label", seed=1).candidates
    assert any(rows != found(Words(corpus), *examples, k=3, queries="label", seed=s).candidates for s in (2, 3, 4))


def test_pairs_of_a_lexical_index_are_joined_by_rank() -> None:
    corpus = ["red cat big", "red sun", "blue dog big", "dog"]
    rows = found(Words(corpus), Example("p", "red cat", "blue dog"), k=2, pairs="unit").candidates
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
def test_what_needs_cosines_is_refused_of_a_lexical_index(options: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=f"{message}.*lexical index words"):
        found(Words(CORPUS), "ab", k=1, **options)


# --- the whole


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    corpus = ["".join(rng.choice(list("abcde"), size=6)) for _ in range(60)]
    examples = [Example(str(at), "".join(rng.choice(list("abcde"), size=7)), "ade", at % 2) for at in range(5)]
    strategies: list[dict[str, Any]] = [{}, {"unique": True}, {"pairs": "both"}, {"diversity": 0.4}]
    given = {"k": 3, "evaluation": [corpus[0], corpus[1]]}
    whole = [found(corpus, *examples, **given, **options) for options in strategies]
    for name in ("_BLOCK", "_BLOCK_WITH_VECTORS"):
        monkeypatch.setattr(choosing, name, 2)
    monkeypatch.setattr(near_copies, "_BLOCK", 1)
    assert [found(corpus, *examples, **given, **options) for options in strategies] == whole
    told: list[tuple[int, int | None]] = []
    found(corpus, *examples, **given, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_no_examples_find_nothing() -> None:
    for queries in ("example", "label", "task", "mix"):
        assert find_neighbours([], Letters(CORPUS), k=3, evaluation=(), queries=queries) == Found([], 0, 0)


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
        found(CORPUS, "ab", **{"k": 1, **options})


def test_the_teachers_distance_is_the_probability_that_moved() -> None:
    original = np.log(np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], dtype=np.float32))
    candidate = np.log(np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], dtype=np.float32)) + 5
    assert teacher_distance(original, candidate) == pytest.approx([0.0, 0.5, 0.6], abs=1e-6)
    far = np.array([[1000.0, -1000.0]], dtype=np.float32)
    assert teacher_distance(far, -far) == pytest.approx([1.0])
    one = np.array([[1.5], [2.0]], dtype=np.float32)
    assert teacher_distance(one, np.array([[1.0], [4.0]], dtype=np.float32)) == pytest.approx([0.5, 2.0])


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
    build_index(folder / "index", CorpusSource(str(path)), encoder)
    return DenseRetriever(Index.open(folder / "index"), encoder)


EXAMPLES = [
    Example("0", "What is the capital of France?", None, 0),
    Example("1", "Tomorrow's weather forecast", None, 1),
]


def test_the_real_retriever_finds_paraphrases(real: DenseRetriever) -> None:
    some = find_neighbours(EXAMPLES, real, k=1, evaluation=())
    assert [texts_of(row) for row in some.candidates] == [[CORPUS_IN_WORDS[1]], [CORPUS_IN_WORDS[3]]]


def test_the_real_retriever_keeps_a_paraphrase_of_a_test_question_out(real: DenseRetriever) -> None:
    some = find_neighbours(EXAMPLES, real, k=1, evaluation=["which city is the capital of france ?"])
    assert texts_of(some.candidates[0]) == [CORPUS_IN_WORDS[4]]
    assert some.excluded_near_copies == 1
    assert some.withheld[0].text == CORPUS_IN_WORDS[1]


@pytest.mark.skipif(not hasattr(DenseRetriever, "encode"), reason="dense retrievers do not encode yet")
@pytest.mark.parametrize("options", [{"queries": "label"}, {"queries": "mix"}, {"diversity": 0.3}, {"unique": True}])
def test_every_strategy_works_with_the_real_retriever(real: DenseRetriever, options: dict[str, Any]) -> None:
    rows = find_neighbours(EXAMPLES, real, k=2, evaluation=(), **options).candidates
    assert [len(row) for row in rows] == [2, 2]
    assert {CORPUS_IN_WORDS[1], CORPUS_IN_WORDS[4]} >= {rows[0][0].text}
    assert rows[1][0].text == CORPUS_IN_WORDS[3]
