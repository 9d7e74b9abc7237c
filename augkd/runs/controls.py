"""The controls of a comparison: the same recipe with one idea taken out, so that a difference has a single cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augkd.errors import RecipeError, did_you_mean
from augkd.recipe import Recipe, TrainingOptions, dump

CONTROLS = ("no-kd", "kd", "random")
AUTO = "auto"  # all controls that a recipe can have


def with_controls(recipes: Mapping[str, Recipe], controls: Sequence[str]) -> dict[str, Recipe]:
    """The recipes, after the wanted controls of the last one: `no-kd`, `kd` (no candidates), `random` (selection).

    `auto` alone is all that the recipe can have. A control that equals a listed recipe, or has the name of one, is not
    made: the listed one stands for it.
    """
    last = list(recipes.values())[-1]
    derived: dict[str, Recipe] = {}
    for name in applicable(last) if list(controls) == [AUTO] else controls:
        if name not in CONTROLS:
            raise RecipeError(f"there is no control '{name}'{did_you_mean(name, CONTROLS)}")
        recipe = control(last, name)
        if name not in recipes and dump(recipe) not in [dump(listed) for listed in recipes.values()]:
            derived[name] = recipe
    return {**derived, **recipes}


def applicable(recipe: Recipe) -> list[str]:
    """The controls that a recipe can have: `random` only where a selector chooses among candidates."""
    return [name for name in CONTROLS if name != "random" or _selects(recipe)]


def control(recipe: Recipe, name: str) -> Recipe:
    """One control of a recipe; raises RecipeError when it would be the recipe itself."""
    tree = recipe.model_dump(mode="json")
    if name == "random":
        if not _selects(recipe):
            raise RecipeError("the control 'random' needs a recipe with candidates and a selector that keeps some")
        ((_, options),) = tree["data"]["select"].items()
        tree["data"]["select"] = {"random": {"keep": options["keep"]} if "keep" in options else {}}
        return Recipe.model_validate(tree)
    given = recipe.data.transfer_set  # holds the teacher's logits too: its candidates are ignored, not dropped
    tree["data"] = {"labelled": recipe.data.labelled} | ({"transfer_set": given, "weight": 0.0} if given else {})
    if name == "no-kd":
        common = set(TrainingOptions.model_fields) - {"stages", "structure", "freelb"}
        tree["training"] = {key: value for key, value in tree["training"].items() if key in common}
        tree["training"] |= {"ce": {"weight": 1.0}, "epochs": sum(stage.epochs for stage in recipe.training_stages)}
        tree |= {"structure": None, "assistants": [], "ensemble": False}
    return Recipe.model_validate(tree)


def _selects(recipe: Recipe) -> bool:
    (selector,) = recipe.data.select
    return recipe.data.has_candidates and selector not in ("everything", "random")


def with_time_budget(recipe: Recipe, seconds: float) -> Recipe:
    """The recipe with `seconds` of training in all: assistants and student share them in proportion to their epochs."""
    trainings = [assistant.training or recipe.training for assistant in recipe.assistants] + [recipe.training]
    epochs = [sum(stage.epochs for stage in training.training_stages) for training in trainings]
    *others, own = [
        training.with_share(seconds, count / sum(epochs)) for training, count in zip(trainings, epochs, strict=True)
    ]
    assistants = [
        assistant.model_copy(update={"training": training})
        for assistant, training in zip(recipe.assistants, others, strict=True)
    ]
    return recipe.model_copy(update={"training": own, "assistants": assistants})
