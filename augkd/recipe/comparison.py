"""A comparison written down: which recipes, on which tasks, over how many seeds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from augkd.errors import RecipeError, did_you_mean
from augkd.recipe.files import apply, find_recipe, load_recipe, read_tree, validated
from augkd.recipe.pipeline import Recipe, TaskOptions
from augkd.recipe.table import Table
from augkd.recipe.units import parse_seconds


class Comparison(Table):
    """Recipes × tasks × seeds. Every recipe is run as it is, but for the task and the changes in `set`."""

    recipes: list[str] = Field(min_length=1)  # files or shipped names
    tasks: list[TaskOptions] = Field(min_length=1)
    seeds: int = Field(1, ge=1)
    budget: float | None = None  # seconds (or 30m, 1.5h) every student trains for, in place of epochs
    baseline: str | None = None  # the recipe that differences are taken to; none: kd, else the first
    set: list[str] = Field(default_factory=list)  # KEY=VALUE of every recipe

    @field_validator("budget", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return None if value is None else parse_seconds(value, "budget")

    @field_validator("tasks", mode="before")
    @classmethod
    def _tasks(cls, value: Any) -> Any:
        given = value if isinstance(value, list) else [value]
        return [{"dataset": task} if isinstance(task, str) else task for task in given]


def is_comparison(name: str) -> bool:
    """Whether a recipe file, or the shipped one of that name, is a comparison."""
    return "recipes" in read_tree(find_recipe(name, "pipelines"))


def recipes_by_name(names: Iterable[str], sets: Iterable[str] = ()) -> dict[str, Recipe]:
    """Recipes by the names that a comparison gives them: that of the file. Raises RecipeError for two of one name."""
    recipes: dict[str, Recipe] = {}
    for name in names:
        short = Path(name).stem
        if short in recipes:
            raise RecipeError(f"two of the recipes are called '{short}'; rename one of the files")
        recipes[short] = load_recipe(name, sets)
    return recipes


def load_comparison(name: str, sets: Iterable[str] = ()) -> tuple[Comparison, dict[str, Recipe]]:
    """The comparison and its recipes by name, each still with a task of its own; raises RecipeError.

    A change of one of the comparison's own keys (`seeds`, `budget`, …) is its own, any other is every recipe's.
    """
    path = find_recipe(name, "pipelines")
    tree = read_tree(path)
    changes = []
    for assignment in sets:
        if assignment.partition("=")[0].split(".")[0] in Comparison.model_fields:
            apply(tree, assignment)
        else:
            changes.append(assignment)
    comparison = validated(Comparison, tree, path)
    recipes = {given: load_recipe(given, [*comparison.set, *changes]) for given in comparison.recipes}
    if comparison.baseline is not None and comparison.baseline not in recipes:
        raise RecipeError(
            f"{path}: baseline '{comparison.baseline}' is not compared{did_you_mean(comparison.baseline, recipes)}"
        )
    return comparison, recipes
