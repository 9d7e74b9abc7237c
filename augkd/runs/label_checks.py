"""Whether a label budget and a teacher that is asked fit the task, before a text is paid for."""

from __future__ import annotations

from augkd.data.target import Target
from augkd.distill.teacher.chat import check_client
from augkd.distill.teacher.prompt import question_for
from augkd.recipe import Recipe


def check_labelling(recipe: Recipe, target: Target, pairs: bool) -> None:
    """Raises RecipeError for what does not fit, ModelError when the client of an endpoint is not installed."""
    if recipe.data.label_budget is not None:
        recipe.data.label_budget.check(target.problem_type)
    for teacher in (recipe.teacher, *(recipe.teacher.ensemble or ())):
        if teacher.endpoint is not None:
            question_for(teacher, target, pairs)
            check_client()
