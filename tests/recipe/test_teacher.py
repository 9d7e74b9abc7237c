"""The teacher table: one source, an endpoint without a secret, and messages that never show one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from augkd.errors import RecipeError
from augkd.recipe import TeacherOptions, dump, load_recipe

SECRET = "sk-Very-Secret-Value-1234567890"


def recipe(folder: Path, teacher: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(f"task: t\nteacher: {teacher}\nstudent: {{model: owner/small}}\ntraining: {{kd: {{}}}}\n")
    return path


def test_an_endpoint_may_be_just_its_url_and_has_its_other_options_beside_it(tmp_path: Path) -> None:
    path = recipe(tmp_path, "{endpoint: 'http://localhost:8000/v1', model: llm}")
    parsed = load_recipe(str(path), ["teacher.endpoint.rate=60.0"])
    assert parsed.teacher.endpoint is not None
    assert (parsed.teacher.endpoint.url, parsed.teacher.endpoint.rate) == ("http://localhost:8000/v1", 60.0)
    assert (parsed.teacher.kind, parsed.teacher.network) == ("endpoint", None)


def test_the_name_of_an_llm_is_no_path_even_where_a_folder_has_that_name(tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()
    path = recipe(tmp_path, "{endpoint: 'http://localhost:8000/v1', model: llm}")
    assert load_recipe(str(path)).teacher.model == "llm"
    plain = recipe(tmp_path, "{model: llm}")
    assert load_recipe(str(plain)).teacher.model == str(tmp_path / "llm")


def test_the_folder_of_answers_is_beside_the_recipe_before_it_exists(tmp_path: Path) -> None:
    assert load_recipe(str(recipe(tmp_path, "{answers: labels}"))).teacher.answers == str(tmp_path / "labels")


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ({"url": "http://x/v1", "key": SECRET}, "must be the name of an environment variable in capitals"),
        ({"url": f"http://user:{SECRET}@x/v1"}, "has a user, a password or a query"),
        ({"url": f"http://x/v1?api_key={SECRET}"}, "has a user, a password or a query"),
        ({"url": f"{SECRET}"}, "is no URL"),
        ({"url": f"http://[{SECRET}"}, "is no URL"),
        ({"url": "http://x/v1", "parameters": {"messages": []}}, "cannot set 'messages'"),
    ],
)
def test_a_secret_in_a_recipe_is_an_error_that_does_not_show_it(endpoint: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as raised:
        TeacherOptions.model_validate({"model": "llm", "endpoint": endpoint})
    assert SECRET not in str(raised.value)


def test_a_secret_given_with_set_is_not_shown_either(tmp_path: Path) -> None:
    path = recipe(tmp_path, "{endpoint: 'http://localhost:8000/v1', model: llm}")
    with pytest.raises(RecipeError) as raised:
        load_recipe(str(path), [f"teacher.endpoint.key={SECRET}"])
    assert SECRET not in str(raised.value)
    with pytest.raises(RecipeError) as raised:
        load_recipe(str(path), [f"teacher.endpoint.api_key={SECRET}"])
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"endpoint": "http://x/v1"}, "needs teacher.model"),
        ({"endpoint": "http://x/v1", "model": "llm", "epochs": 1.0}, "drop it beside teacher.endpoint"),
        ({"endpoint": "http://x/v1", "model": "llm", "logits": "a.parquet"}, "give one of"),
        ({"model": "m", "answers": "labels"}, "give one of"),
        ({"model": "m", "prompt": "x"}, "are for a teacher with an endpoint"),
        ({"endpoint": "http://x/v1", "model": "llm", "prompt": "{options}"}, "lacks {text}"),
        ({"endpoint": "http://x/v1", "model": "llm", "prompt": "{text}"}, "lacks {options}"),
        ({}, "give one of"),
    ],
)
def test_what_does_not_fit_together_is_an_error(teacher: dict[str, Any], message: str) -> None:
    with pytest.raises((RecipeError, ValueError), match=message):
        TeacherOptions.model_validate(teacher)


def test_a_student_made_of_the_teacher_needs_a_teacher_whose_layers_are_here(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "task: t\nteacher: {endpoint: 'http://x/v1', model: llm}\nstudent: {layers: [0]}\ntraining: {kd: {}}\n"
    )
    with pytest.raises(RecipeError, match=r"student\.layers needs a teacher\.model"):
        load_recipe(str(path))


def test_what_is_dumped_holds_the_name_of_the_variable_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    options = TeacherOptions.model_validate({"model": "llm", "endpoint": {"url": "http://x/v1", "key": "MY_KEY"}})
    assert SECRET not in str(dump(options))
    assert dump(options)["endpoint"]["key"] == "MY_KEY"
