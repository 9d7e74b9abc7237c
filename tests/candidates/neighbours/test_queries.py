"""A query knows what is looked up, how many neighbours are wanted, and where they go."""

from __future__ import annotations

import pytest

from augkd.candidates.neighbours.queries import (
    Query,
    check_classes,
    group_queries,
    queries_of,
    sentence_spans,
    spread,
    unit_queries,
    with_sentences,
)
from augkd.data.cleaning import normalised
from augkd.data.task import Example
from augkd.errors import DataError, RecipeError

DOCUMENT = "It rained.  The long second sentence goes here!\nDone?"


def by_sentence(text: str, k: int, pair: str | None = None) -> list[Query]:
    return list(queries_of(0, Example("e", text, pair), k, unit="sentence"))


def test_a_single_text_is_one_query_that_wants_everything() -> None:
    (query,) = queries_of(3, Example("e", "A cat."), 5)
    assert (query.row, query.side, query.text, query.wanted, query.own) == (3, "", "A cat.", 5, {"acat"})
    assert (query.fill("A dog."), query.place) == ("A dog.", "")


@pytest.mark.parametrize(
    ("k", "expected"), [(1, [("text", 1)]), (4, [("text", 2), ("pair", 2)]), (5, [("text", 3), ("pair", 2)])]
)
def test_a_pair_wants_half_for_each_side_and_the_odd_one_for_the_first(k: int, expected: list[tuple[str, int]]) -> None:
    queries = list(queries_of(0, Example("e", "A cat.", "A dog."), k))
    assert [(query.side, query.wanted) for query in queries] == expected
    assert {query.own for query in queries} == {frozenset({"acat", "adog"})}


def test_sentences_are_found_with_their_spans() -> None:
    spans = sentence_spans(DOCUMENT)
    assert [DOCUMENT[start:stop] for start, stop in spans] == [
        "It rained.",
        "The long second sentence goes here!",
        "Done?",
    ]
    assert sentence_spans("") == sentence_spans(" \n") == []
    assert sentence_spans("  One, é😀.  ") == [(2, 10)]


def test_k_is_spread_evenly_and_the_rest_goes_to_the_longest() -> None:
    assert spread(7, [10, 30, 20]) == [2, 3, 2]
    assert spread(2, [10, 30, 20]) == [0, 1, 1]
    assert spread(4, [5, 5, 5]) == [2, 1, 1]  # the first of equals
    assert spread(3, [5]) == [3]


def test_a_neighbour_replaces_one_sentence_and_the_rest_of_the_document_stays() -> None:
    queries = by_sentence(DOCUMENT, 4)
    assert [(query.text, query.wanted, query.place) for query in queries] == [
        ("It rained.", 1, "-s0"),
        ("The long second sentence goes here!", 2, "-s1"),
        ("Done?", 1, "-s2"),
    ]
    assert queries[1].fill("NEW") == "It rained.  NEW\nDone?"
    assert queries[0].fill("NEW") == "NEW  The long second sentence goes here!\nDone?"
    assert queries[2].fill("NEW") == "It rained.  The long second sentence goes here!\nNEW"
    assert [query.text for query in by_sentence(DOCUMENT, 1)] == ["The long second sentence goes here!"]


def test_no_sentence_may_come_to_stand_in_a_document_twice() -> None:
    expected = {normalised(DOCUMENT), "itrained", "thelongsecondsentencegoeshere", "done"}
    assert {query.own for query in by_sentence(DOCUMENT, 3)} == {frozenset(expected)}


def test_a_text_of_one_sentence_is_looked_up_as_a_text() -> None:
    assert by_sentence("Just one.", 4) == list(queries_of(0, Example("e", "Just one."), 4))
    assert len(by_sentence("One. Two.", 4)) == 2  # two sentences


def test_each_side_of_a_pair_is_split_separately() -> None:
    queries = by_sentence("Just one.", 4, "First here. Second there.")
    assert [(query.place, query.wanted) for query in queries] == [("-text", 2), ("-pair-s0", 1), ("-pair-s1", 1)]
    assert queries[2].fill("NEW") == "First here. NEW"


def test_a_pair_as_a_unit_looks_up_both_sides_in_full() -> None:
    first, second = unit_queries(2, Example("e", "A cat.", "A dog."), 3)
    assert [(query.text, query.wanted, query.side) for query in (first, second)] == [
        ("A cat.", 3, "unit"),
        ("A dog.", 3, "unit"),
    ]
    with pytest.raises(RecipeError, match="'e' is a single text"):
        unit_queries(0, Example("e", "A cat."), 3)


def test_averages_are_of_a_class_or_of_the_task_each_side_separately() -> None:
    examples = [Example("0", "a", "b", 1), Example("1", "c", "d", 0), Example("2", "e", "f", 1)]
    queries = [query for row, example in enumerate(examples) for query in queries_of(row, example, 2)]
    assert [[query.text for query in group] for group in group_queries(queries, examples, "label")] == [
        ["d"],
        ["b", "f"],
        ["c"],
        ["a", "e"],
    ]
    assert [[query.text for query in group] for group in group_queries(queries, examples, "task")] == [
        ["b", "d", "f"],
        ["a", "c", "e"],
    ]


@pytest.mark.parametrize(("label", "message"), [(None, "'x' has no label"), (2.5, "'x' has the number 2.5 as label")])
def test_an_example_without_a_class_has_no_label_average(label: float | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_classes([Example("a", "t", None, 0), Example("x", "t", None, label)])
    check_classes([Example("a", "t", None, 0)])


def test_sentences_of_long_evaluation_texts_are_guarded_too() -> None:
    assert list(with_sentences(["One. Two.", "Single."])) == ["One. Two.", "One.", "Two.", "Single."]
