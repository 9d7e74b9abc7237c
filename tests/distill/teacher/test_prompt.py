"""The question about a text and how an answer is read, without a server."""

from __future__ import annotations

import numpy as np
import pytest

from augkd.data.target import Target
from augkd.distill.teacher.prompt import Answer, Question, Reply, averaged, question_for, rotations, smoothed
from augkd.errors import RecipeError
from augkd.recipe import TeacherOptions

LABELS = ("ABBR", "LOC", "NUM")


def asked(pairs: bool = False, target: Target | None = None, **options: object) -> Question:
    endpoint = {"url": "http://x/v1", "permutations": options.pop("permutations", 1)}
    given = TeacherOptions.model_validate({"model": "llm", "endpoint": endpoint, **options})
    return question_for(given, target or Target(LABELS), pairs)


def test_rotations_are_distinct_and_evenly_spaced() -> None:
    assert rotations([0, 1, 2, 3], 2) == ((0, 1, 2, 3), (2, 3, 0, 1))
    assert rotations([0, 1, 2], 3) == ((0, 1, 2), (1, 2, 0), (2, 0, 1))
    assert rotations([2, 0, 1], 1) == ((2, 0, 1),)
    assert len(rotations([0, 1], 5)) == 2, "there are only two"


def test_options_come_in_the_order_of_the_labels_with_their_descriptions() -> None:
    given = asked(labels=["NUM", "ABBR", "LOC"], descriptions={"NUM": "a number or a date"})
    (order,) = given.orders
    text = given.text(("When?", None), order)
    assert "A) NUM: a number or a date\nB) ABBR\nC) LOC" in text
    read = given.read(Reply("B"), order, logprobs=True)
    assert read.values is not None
    assert read.values.argmax() == 0, "in the task's order"


def test_an_own_prompt_is_used_as_it_is_and_may_hold_braces() -> None:
    given = asked(prompt='Reply {"x": 1}. {text} / {options}')
    assert given.text(("When?", None), (0, 1, 2)).startswith('Reply {"x": 1}. When? / A) ABBR')


def test_pairs_show_both_texts() -> None:
    assert "First text: a\nSecond text: b" in asked(pairs=True).text(("a", "b"), (0, 1, 2))
    with pytest.raises(RecipeError, match=r"lacks \{text_pair\}"):
        asked(pairs=True, prompt="{text} {options}")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target(), "the task predicts a number"),
        (Target(LABELS, multi_label=True), "any number of them"),
        (Target(tuple(str(n) for n in range(53))), "at most 52 classes; the task has 53"),
    ],
)
def test_a_task_that_cannot_be_asked_about_is_an_error(target: Target, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        asked(target=target)


def test_labels_and_descriptions_must_be_those_of_the_task() -> None:
    with pytest.raises(RecipeError, match=r"teacher\.labels is \['LOC', 'NUM'\]"):
        asked(labels=["LOC", "NUM"])
    with pytest.raises(RecipeError, match="names 'Loc'"):
        asked(descriptions={"Loc": "a place"})


def test_more_than_26_options_tell_small_letters_from_capitals() -> None:
    labels = tuple(f"class {n}" for n in range(30))
    given = asked(target=Target(labels))
    read = given.read(Reply("b"), given.orders[0], logprobs=True)
    assert read.values is not None
    assert read.values.argmax() == 27


@pytest.mark.parametrize(("reply", "place"), [("US", 1), ("us.", 0), ("Num", 2), ("Us", None)])
def test_classes_that_differ_in_case_only_are_told_apart(reply: str, place: int | None) -> None:
    given = asked(target=Target(("us", "US", "num")))
    read = given.read(Reply(reply), given.orders[0], logprobs=False)
    assert (None if read.values is None else int(read.values.argmax())) == place


def test_thoughts_are_not_the_answer() -> None:
    given = asked()
    read = given.read(Reply("<think>It could be A.</think>\nC"), given.orders[0], logprobs=True)
    assert read.values is not None
    assert read.values.argmax() == 2


def test_log_probabilities_count_only_where_the_text_names_that_option() -> None:
    given = asked()
    first = [("A", [("A", -0.1), ("B", -2.0)]), (" place", [])]
    assert given.read(Reply("A place far away", tokens=first), given.orders[0], logprobs=True).values is None


def test_alternatives_of_minus_9999_are_as_good_as_none() -> None:
    """What some servers give for a token that cannot come; its probability is 0 in double precision."""
    given = asked()
    tokens = [("A", [("A", -0.0001), ("B", -9999.0), ("C", -9999.0)])]
    read = given.read(Reply("A", tokens=tokens), given.orders[0], logprobs=True)
    assert read.values is not None
    assert np.isfinite(read.values).all()
    assert np.exp(read.values).sum() == pytest.approx(1)


def test_the_average_of_orders_leaves_out_those_without_an_answer() -> None:
    one, two = (Answer(np.log(np.array(values))) for values in ([0.8, 0.2], [0.4, 0.6]))
    mean = averaged([one, Answer(None, "unparsable"), two])
    assert mean.values is not None
    assert np.exp(mean.values) == pytest.approx([0.6, 0.4])
    assert averaged([Answer(None, "refused"), Answer(None, "unparsable")]).reason == "refused"


def test_smoothing_spreads_its_share_over_all_classes() -> None:
    assert np.exp(smoothed(1, 4, 0.2)) == pytest.approx([0.05, 0.85, 0.05, 0.05])
