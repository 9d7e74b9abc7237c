"""A control differs from its recipe in what it is named for; a time budget is shared by epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from augkd.cli.app import app
from augkd.errors import RecipeError
from augkd.recipe import Recipe, dump, load_comparison, load_recipe, recipes_by_name
from augkd.runs.controls import applicable, control, with_controls, with_time_budget


def recipe_with(data: dict[str, Any], **training: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "task": "x",
            "teacher": {"model": "t", "epochs": 1},
            "student": {"layers": [0]},
            "data": data,
            "training": {"kd": {"weight": 1.0}} | training,
        }
    )


NEIGHBOURS = {"neighbours": {"index": "somewhere", "k": 4}, "select": {"minimax": {"keep": 2}}}


def test_auto_adds_every_control_that_applies_to_the_last_recipe() -> None:
    augmented, plain = recipe_with(NEIGHBOURS), recipe_with({})
    assert applicable(augmented) == ["no-kd", "kd", "random"]
    assert applicable(recipe_with(NEIGHBOURS | {"select": "everything"})) == ["no-kd", "kd"]
    recipes = with_controls({"plain": plain, "mine": augmented}, ["auto"])
    assert list(recipes) == ["no-kd", "random", "plain", "mine"], "'plain' is already the control kd"
    assert recipes["random"].data.select == {"random": {"keep": 2}}
    assert recipes["random"].data.neighbours == augmented.data.neighbours
    assert dump(control(augmented, "kd")) == dump(plain)


def test_a_control_that_is_already_listed_by_content_or_name_is_not_run_twice() -> None:
    augmented, plain = recipe_with(NEIGHBOURS), recipe_with({})
    assert list(with_controls({"kd": recipe_with({}, epochs=9.0), "mine": augmented}, ["kd", "random"])) == [
        *("random", "kd", "mine")
    ]
    assert with_controls({"kd": recipe_with({}, epochs=9.0), "mine": augmented}, ["kd"])["kd"].training.epochs == 9
    assert list(with_controls({"mine": plain}, ["auto"])) == ["no-kd", "mine"]
    assert list(with_controls({"mine": recipe_with({}, epochs=9.0)}, [])) == ["mine"]


def test_a_requested_control_that_does_not_apply_is_an_error() -> None:
    with pytest.raises(RecipeError, match="'random' needs a recipe with candidates and a selector"):
        with_controls({"mine": recipe_with({})}, ["random"])
    with pytest.raises(RecipeError, match="no control 'randon'; did you mean 'random'"):
        with_controls({"mine": recipe_with({})}, ["randon"])


def test_two_recipe_files_with_the_same_name_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "kd.yaml").write_text("{}")
    with pytest.raises(RecipeError, match="two of the recipes are called 'kd'"):
        recipes_by_name(["kd", str(tmp_path / "kd.yaml")])


# ---- time budgets ----


def test_a_time_budget_is_shared_by_assistants_stages_and_student_in_proportion_to_their_epochs() -> None:
    recipe = load_recipe("takd")
    timed = with_time_budget(recipe, 1800.0)
    epochs = [sum(s.epochs for s in (a.training or recipe.training).training_stages) for a in recipe.assistants]
    epochs.append(sum(stage.epochs for stage in recipe.training_stages))
    budgets = [a.training.budget for a in timed.assistants if a.training] + [timed.training.budget]
    assert budgets == pytest.approx([1800 * epoch / sum(epochs) for epoch in epochs])
    staged = with_time_budget(load_recipe("annealing-kd"), 60.0)
    assert sum(stage.budget or 0.0 for stage in staged.training_stages) == pytest.approx(60.0)
    assert recipe.training.budget is None


def test_a_comparison_recipe_can_have_a_time_budget(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("recipes: [kd]\ntasks: [x]\nbudget: 1.5h\n")
    assert load_comparison(str(path))[0].budget == 5400
    assert load_comparison(str(path), ["budget=10m"])[0].budget == 600
    with pytest.raises(RecipeError, match="budget is 'soon'; write it like"):
        load_comparison(str(path), ["budget=soon"])


def test_an_invalid_time_budget_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", "kd", "--out", str(tmp_path / "out"), "--budget", "soon"])
    assert isinstance(done.exception, RecipeError)
    assert str(done.exception) == "--budget is 'soon'; write it like 90s, 30m or 2h30m"
    assert not (tmp_path / "out").exists()


def test_the_controls_see_the_labelled_texts_that_the_recipe_sees() -> None:
    augmented, few = recipe_with(NEIGHBOURS), recipe_with(NEIGHBOURS | {"labelled": 300})
    assert {name: recipe.data.labelled for name, recipe in with_controls({"mine": few}, ["auto"]).items()} == {
        **dict.fromkeys(("no-kd", "kd", "random", "mine"), 300)
    }
    assert {recipe.data.labelled for recipe in with_controls({"mine": augmented}, ["auto"]).values()} == {None}
