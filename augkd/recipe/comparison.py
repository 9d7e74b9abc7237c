"""A comparison recipe: which recipes, on which tasks, over how many seeds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from augkd.errors import RecipeError, did_you_mean
from augkd.recipe.files import apply_override, find_recipe, load_recipe, read_tree, validate
from augkd.recipe.pipeline import Recipe, TaskOptions
from augkd.recipe.table import Table
from augkd.recipe.units import parse_seconds


class Comparison(Table):
    """Recipes × tasks × seeds. Every recipe is run unchanged except for its task and the overrides in `set`."""

    recipes: list[str] = Field(min_length=1)  # files or shipped names
    tasks: list[TaskOptions] = Field(min_length=1)
    seeds: int = Field(1, ge=1, le=10_000)
    budget: float | None = None  # time budget of every student in place of epochs: seconds, 30m, 1.5h
    baseline: str | None = None  # the recipe the others are compared with; none: kd, else the first
    split: Literal["validation", "test"] | None = None  # what is compared; none: test, or validation without its labels
    set: list[str] = Field(default_factory=list)  # KEY=VALUE overrides, applied to every recipe

    @field_validator("budget", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return None if value is None else parse_seconds(value, "budget")

    @field_validator("tasks", mode="before")
    @classmethod
    def _tasks(cls, value: Any) -> Any:
        tasks = value if isinstance(value, list) else [value]
        return [{"dataset": task} if isinstance(task, str) else task for task in tasks]


def is_comparison(name: str) -> bool:
    """Whether a recipe file, or the shipped recipe of that name, is a comparison."""
    return "recipes" in read_tree(find_recipe(name, "pipelines"))


def recipes_by_name(names: Iterable[str], overrides: Iterable[str] = ()) -> dict[str, Recipe]:
    """Recipes by the stem of their file names; raises RecipeError for a name given twice."""
    recipes: dict[str, Recipe] = {}
    for name in names:
        short = Path(name).stem
        if short in recipes:
            raise RecipeError(f"two of the recipes are called '{short}'; rename one of the files")
        recipes[short] = load_recipe(name, overrides)
    return recipes


def load_comparison(name: str, overrides: Iterable[str] = ()) -> tuple[Comparison, dict[str, Recipe]]:
    """The comparison and its recipes by name, each still with its own task; raises RecipeError.

    An override of a key of the comparison itself (`seeds`, `budget`, …) changes the comparison, any other every recipe.
    """
    path = find_recipe(name, "pipelines")
    tree = read_tree(path)
    of_recipes = []
    for override in overrides:
        if override.partition("=")[0].split(".")[0] in Comparison.model_fields:
            apply_override(tree, override)
        else:
            of_recipes.append(override)
    comparison = validate(Comparison, tree, path)
    recipes = {recipe: load_recipe(recipe, [*comparison.set, *of_recipes]) for recipe in comparison.recipes}
    if (baseline := comparison.baseline) is not None and baseline not in recipes:
        raise RecipeError(f"{path}: baseline '{baseline}' is not one of the recipes{did_you_mean(baseline, recipes)}")
    return comparison, recipes
