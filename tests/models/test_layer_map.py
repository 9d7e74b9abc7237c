"""Layer maps are those of the papers, and an impossible one is rejected."""

from __future__ import annotations

from typing import Any

import pytest

from augkd.errors import ModelError
from augkd.models.layer_map import layer_map


@pytest.mark.parametrize(
    ("choice", "teacher", "student", "layers"),
    [
        ("middle", 6, 2, (1, 4)),
        ("middle", 12, 3, (1, 5, 9)),
        ("middle", 12, 2, (2, 8)),  # of six layers the lower of the two in the middle
        ("middle", 6, 1, (2,)),
        ("middle", 7, 2, (1, 4)),  # parts of 3.5 layers
        ("uniform", 12, 6, (1, 3, 5, 7, 9, 11)),
        ("uniform", 12, 4, (2, 5, 8, 11)),
        ("uniform", 6, 2, (2, 5)),
        ("uniform", 5, 3, (0, 2, 4)),
        ("first", 12, 4, (0, 1, 2, 3)),
        ("last", 12, 4, (8, 9, 10, 11)),
        ("distilbert", 12, 6, (0, 2, 4, 7, 9, 11)),
        ("distilbert", 12, 2, (0, 11)),
        ("distilbert", 12, 1, (0,)),
        ("distilbert", 12, 12, tuple(range(12))),
        ([11, 0, 3], 12, 3, (11, 0, 3)),
    ],
)
def test_layer_maps_are_those_of_the_papers(
    choice: str | list[int], teacher: int, student: int, layers: tuple[int, ...]
) -> None:
    assert layer_map(choice, teacher, student) == layers


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("distillbert", "did you mean 'distilbert'"),
        ([0, 12], "among the teacher's 0 to 11"),
        ([0, -1], "among the teacher's 0 to 11"),
        ([0, 1, 2], "name 2, one for each student layer"),
    ],
)
def test_an_impossible_layer_map_is_rejected_in_one_line(choice: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        layer_map(choice, 12, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("choice", ["middle", "uniform", "first", "last", "distilbert"])
def test_a_student_deeper_than_its_teacher_has_no_map(choice: str) -> None:
    assert layer_map(choice, 3, 3) == (0, 1, 2)
    with pytest.raises(ModelError, match="needs 1 to 3 student layers"):
        layer_map(choice, 3, 4)
