"""`sample: used` is as many neighbours as the training comes to, and all of them where that is not known."""

from __future__ import annotations

import pytest

from augkd.errors import RecipeError
from augkd.recipe import Recipe, load_recipe

MINIMAX = "data.select={minimax: {keep: 2, of: 8}}"
STAGES = "training={stages: [{kd: {weight: 1.0}, epochs: 1}, {ce: {weight: 1.0}, epochs: 3}]}"


def neighbours(texts: int, *overrides: str) -> int | str | None:
    plain = ("data.select={random: {keep: 2}}", "training.epochs=4", "training.max_steps=0")
    recipe = load_recipe("quick", ["data.neighbours.sample=used", *plain, *overrides]).for_texts(texts)
    assert recipe.data.neighbours is not None
    return recipe.data.neighbours.sample


@pytest.mark.parametrize(
    ("texts", "overrides", "expected"),
    [
        (1000, (), 8),  # 2 in each of 4 epochs
        (1000, ("training.epochs=2.5",), 6),
        (1000, (MINIMAX,), 32),
        (1000, (MINIMAX, "training.epochs=12"), 64),  # k
        (1000, ("data.select=random",), 16),  # its default is to keep 4
        (1000, ("training.max_steps=40",), 4),  # 32 steps an epoch: 1.25 epochs
        (1000, ("training.max_steps=40", "training.accumulation=2"), 6),  # 16 steps an epoch: 2.5 epochs
        (1000, ("training.max_steps=400",), 8),
        (10_000, ("training.max_steps=40",), 2),
        (1000, (STAGES, "structure=null"), 6),  # each stage begins with the same ones
    ],
)
def test_they_are_counted_from_epochs_steps_and_selector(texts: int, overrides: tuple[str, ...], expected: int) -> None:
    assert neighbours(texts, *overrides) == expected


@pytest.mark.parametrize(
    "override",
    ["data.select=everything", "data.select={minimax: {keep: 2}}", "data.select=nearest", "training.budget=10m"],
)
def test_all_are_used_where_none_can_be_spared(override: str) -> None:
    assert neighbours(1000, override) is None


def test_an_assistant_that_trains_longer_decides() -> None:
    assert neighbours(1000, "assistants=[{layers: {middle: 3}, training: {kd: {weight: 1.0}, epochs: 10}}]") == 20


def test_a_number_is_kept_and_a_recipe_without_neighbours_too() -> None:
    assert neighbours(1000, "data.neighbours.sample=3") == 3
    plain: Recipe = load_recipe("kd")
    assert plain.for_texts(1000) is plain


@pytest.mark.parametrize("value", ["0", "65", "some"])
def test_anything_else_is_an_error(value: str) -> None:
    with pytest.raises(RecipeError, match=r"sample"):
        neighbours(1000, f"data.neighbours.sample={value}")
