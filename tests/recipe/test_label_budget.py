"""The rounds of a label budget: what they mean, and what cannot be one."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from augkd.errors import RecipeError
from augkd.recipe import LabelBudgetOptions


def options(**given: object) -> LabelBudgetOptions:
    return LabelBudgetOptions.model_validate({"texts": 1000, **given})


def test_a_number_of_rounds_splits_the_texts_evenly_and_a_list_is_kept() -> None:
    assert options(rounds=4).sizes == [250, 500, 750, 1000]
    assert options(rounds=3).sizes == [333, 667, 1000]
    assert options(rounds=[10, 1000]).sizes == [10, 1000]


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        (0, "rounds is 0; give 1 to 1000"),
        (1001, "rounds is 1001; give 1 to 1000"),
        ([], "rounds is []; give growing numbers of texts"),
        ([0, 1000], "rounds is [0, 1000]; give growing numbers of texts"),
        ([500, 250, 1000], "rounds is [500, 250, 1000]; give growing numbers of texts"),
        ([250, 250, 1000], "rounds is [250, 250, 1000]; give growing numbers of texts"),
        ([250, 500], "the last of rounds is 500; it must be texts, 1000"),
    ],
)
def test_rounds_that_do_not_grow_to_the_texts_are_an_error(rounds: object, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        options(rounds=rounds)


def test_a_selector_that_needs_a_class_is_an_error_for_other_tasks_and_random_is_not() -> None:
    options(by="entropy").check("single_label_classification")
    options(by="random").check("regression")
    with pytest.raises(RecipeError, match="label selector 'entropy' needs one class per text; use random"):
        options(by="entropy").check("multi_label_classification")
