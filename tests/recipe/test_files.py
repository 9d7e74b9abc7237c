"""A recipe is accepted whole or refused with the key that is wrong; overrides and paths are resolved as documented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from augkd.errors import RecipeError
from augkd.recipe import (
    Recipe,
    dump,
    find_recipe,
    is_comparison,
    load_comparison,
    load_index_recipe,
    load_recipe,
    shipped_recipes,
)


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    return {
        "task": {"dataset": "owner/task", "text": "sentence", "label": "kind", "max_train": 10},
        "teacher": {"model": "owner/teacher"},
        "student": {"layers": [0, 2]},
        "data": {
            "neighbours": {"index": {"corpus": {"dataset": "owner/corpus", "text": "body", "limit": 9}}, "k": 4},
            "select": {"minimax": {"keep": 2}},
        },
        "training": {"kd": {"weight": 0.5, "temperature": 2.0}},
    }


def load(folder: Path, tree: dict[str, Any], *overrides: str) -> Recipe:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return load_recipe(str(folder / "recipe.yaml"), overrides)


def error_of(folder: Path, tree: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(folder, tree, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'recipe.yaml'}: ")


# ---- what is shipped ----


@pytest.mark.parametrize("name", shipped_recipes("pipelines"))
def test_every_shipped_pipeline_loads_by_its_bare_name(name: str) -> None:
    if is_comparison(name):
        assert len(load_comparison(name)[1]) > 1
    else:
        assert load_recipe(name).training_stages


@pytest.mark.parametrize("name", shipped_recipes("indexes"))
def test_every_shipped_index_recipe_loads_by_its_bare_name(name: str) -> None:
    assert load_index_recipe(name).corpus.dataset


def test_recipes_are_shipped_at_all() -> None:
    assert {"demo", "kd", "minimax-knn", "vanilla-knn"} <= set(shipped_recipes("pipelines"))
    assert "demo" in shipped_recipes("indexes")


def test_a_name_that_is_neither_file_nor_shipped_is_refused_with_the_one_meant() -> None:
    with pytest.raises(RecipeError, match="did you mean 'minimax-knn'"):
        load_recipe("minimaxknn")
    with pytest.raises(RecipeError, match="known: demo"):
        load_index_recipe("zzz")


def test_a_file_takes_precedence_over_the_shipped_recipe_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("kd", "pipelines") == shipped_recipes("pipelines")["kd"]
    (tmp_path / "kd").write_text("task: x")
    assert find_recipe("kd", "pipelines") == Path("kd")


# ---- unknown and missing keys ----


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("trainig", "a recipe has no key 'trainig'; did you mean 'training'?"),
        ("task.lable", "task has no key 'lable'; did you mean 'label'?"),
        ("teacher.modle", "teacher has no key 'modle'; did you mean 'model'?"),
        ("student.layer", "student has no key 'layer'; did you mean 'layers'?"),
        ("data.neighbors", "data has no key 'neighbors'; did you mean 'neighbours'?"),
        ("data.neighbours.K8", "data.neighbours has no key 'K8'; known: diversity, index, k"),
        ("data.neighbours.index.corpora", "data.neighbours.index has no key 'corpora'; did you mean 'corpus'?"),
        ("data.neighbours.index.corpus.txt", "data.neighbours.index.corpus has no key 'txt'; did you mean 'text'?"),
        ("data.neighbours.index.faiss.recal", "data.neighbours.index.faiss has no key 'recal'"),
        ("training.epoch", "training has no key 'epoch'; did you mean 'epochs'?"),
        ("training.kd.temprature", "loss 'kd' has no option 'temprature'; did you mean 'temperature'?"),
        ("data.select.minimax.kep", "selector 'minimax' has no option 'kep'; did you mean 'keep'?"),
    ],
)
def test_an_unknown_key_is_refused_at_every_level(
    tmp_path: Path, tree: dict[str, Any], path: str, message: str
) -> None:
    load(tmp_path, tree)  # the recipe is valid without it
    assert error_of(tmp_path, tree, f"{path}=1").startswith(message)


@pytest.mark.parametrize("key", ["task", "teacher", "student", "training"])
def test_a_missing_part_is_named(tmp_path: Path, tree: dict[str, Any], key: str) -> None:
    del tree[key]
    assert error_of(tmp_path, tree) == f"'{key}' is missing; a recipe needs it"


def test_a_key_missing_in_a_nested_index_is_named(tmp_path: Path, tree: dict[str, Any]) -> None:
    del tree["data"]["neighbours"]["index"]["corpus"]["dataset"]
    assert error_of(tmp_path, tree) == "'data.neighbours.index.corpus.dataset' is missing; a recipe needs it"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.neighbours.k=0", "data.neighbours.k is 0"),
        ("data.neighbours.k=257", "data.neighbours.k is 257"),
        ("data.select={minimax: {keep: 0}}", "selector 'minimax' option 'keep' is 0; it must be >= 1"),
        ("data.select={minimax: {keep: true}}", "selector 'minimax' option 'keep' is True; give an int"),
        ("data.select={minimax: {keep: 4, of: 2}}", "data.select is {'minimax': {'keep': 4, 'of': 2}}: minimax w"),
        ("data.select={minimax: {}, random: {}}", "data.select is "),
        ("training.kd=0.5", "training.kd is 0.5; give a table"),
        ("training.kd.weight=-1", "loss 'kd' option 'weight' is -1; it must be >= 0"),
        ("training.warmup_ratio=1", "training.warmup_ratio is 1"),
        ("training.epochs=0", "training.epochs is 0"),
        ("training.precision=half", "training.precision is 'half'"),
        ("task.max_train=1", "task.max_train is 1"),
        ("teacher.logits=x", "teacher is "),
        ("student.model=x", "student is "),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(
    tmp_path: Path, tree: dict[str, Any], override: str, message: str
) -> None:
    assert error_of(tmp_path, tree, override).startswith(message)


def test_a_recipe_without_any_loss_is_refused(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["training"] = {"epochs": 2}
    assert "training has no loss" in error_of(tmp_path, tree)


def test_layers_without_a_teacher_model_are_refused(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["teacher"] = {"logits": "logits.parquet"}
    assert "student.layers needs a teacher.model" in error_of(tmp_path, tree)
    tree["student"] = {"model": "owner/student"}
    assert load(tmp_path, tree).teacher.logits == "logits.parquet"


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "is not valid YAML"), ("- a", "holds a list"), ("", "holds nothing")]
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(tmp_path / "recipe.yaml"))


# ---- shorthands and defaults ----


def test_short_forms_mean_the_long_ones(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["task"], tree["data"]["neighbours"]["index"]["corpus"] = "owner/task", "owner/corpus"
    tree["data"]["select"] = "everything"
    recipe = load(tmp_path, tree)
    assert recipe.task.dataset == "owner/task"
    assert recipe.data.neighbours.index.corpus.dataset == "owner/corpus"
    assert recipe.data.select == {"everything": {}}


def test_a_loss_without_weight_has_weight_one(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["training"]["ce"] = {}
    losses = load(tmp_path, tree).training.losses
    assert losses == {"kd": {"weight": 0.5, "temperature": 2.0}, "ce": {"weight": 1.0}}


def test_a_dumped_recipe_is_read_back_as_itself(tmp_path: Path, tree: dict[str, Any]) -> None:
    recipe = load(tmp_path, tree)
    assert Recipe.model_validate(dump(recipe)) == recipe


# ---- --set ----


def test_an_override_changes_a_dotted_key_to_a_yaml_value(tmp_path: Path, tree: dict[str, Any]) -> None:
    recipe = load(tmp_path, tree, "training.epochs=2.5", "student.layers=[1]", "training.ce={weight: 0.25}", "seed=7")
    assert recipe.training.epochs == 2.5
    assert recipe.student.layers == [1]
    assert recipe.training.losses["ce"] == {"weight": 0.25}
    assert recipe.training.losses["kd"]["temperature"] == 2.0  # not overridden
    assert recipe.seed == 7


def test_the_later_of_two_overrides_wins(tmp_path: Path, tree: dict[str, Any]) -> None:
    assert load(tmp_path, tree, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(("override", "message"), [("seed", "has no '='"), ("=3", "has no key before '='")])
def test_an_override_without_key_or_value_is_refused(
    tmp_path: Path, tree: dict[str, Any], override: str, message: str
) -> None:
    assert message in error_of(tmp_path, tree, override)


def test_an_override_whose_value_is_no_yaml_is_refused(tmp_path: Path, tree: dict[str, Any]) -> None:
    assert "is not valid YAML" in error_of(tmp_path, tree, "student.layers=[0")


def test_an_overridden_dataset_keeps_no_column_name_of_the_old_one(tmp_path: Path, tree: dict[str, Any]) -> None:
    recipe = load(tmp_path, tree, "task.dataset=owner/other")
    assert (recipe.task.dataset, recipe.task.text, recipe.task.label) == ("owner/other", "text", "label")
    assert recipe.task.max_train == 10  # not a description of the data set
    kept = load(tmp_path, tree, "task.name=x")
    assert (kept.task.text, kept.task.label) == ("sentence", "kind")
    named = load(tmp_path, tree, "task.dataset=owner/other", "task.text=words")
    assert (named.task.text, named.task.label) == ("words", "label")


def test_an_overridden_corpus_changes_the_index_recipe_that_the_file_names(
    tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = {"corpus": {"dataset": "owner/corpus", "text": "body"}, "encoder": {"max_length": 16}, "seed": 5}
    (tmp_path / "index.yaml").write_text(yaml.safe_dump(index))
    tree["data"]["neighbours"]["index"] = "index.yaml"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lines.txt").write_text("a line\n")
    monkeypatch.chdir(elsewhere)
    for key in ("corpus", "corpus.dataset"):
        changed = load(tmp_path, tree, f"data.neighbours.index.{key}=lines.txt").data.neighbours.index
        assert not isinstance(changed, str)
        assert changed.corpus.dataset == str(elsewhere / "lines.txt")
        assert changed.corpus.text == "text"
        assert (changed.encoder.max_length, changed.seed) == (16, 5)
    unchanged = load(tmp_path, tree).data.neighbours.index
    assert not isinstance(unchanged, str)
    assert (unchanged.corpus.dataset, unchanged.corpus.text) == ("owner/corpus", "body")


def test_a_shipped_index_named_in_an_override_is_inlined(tmp_path: Path, tree: dict[str, Any]) -> None:
    recipe = load(tmp_path, tree, "data.neighbours.index=demo", "data.neighbours.index.seed=3")
    assert recipe.data.neighbours.index.corpus.dataset == "augkd:docstrings"
    assert recipe.data.neighbours.index.seed == 3


def test_the_folder_of_a_built_index_stays_a_path(tmp_path: Path, tree: dict[str, Any]) -> None:
    (tmp_path / "built").mkdir()
    tree["data"]["neighbours"]["index"] = "built"
    assert load(tmp_path, tree).data.neighbours.index == str(tmp_path / "built")


# ---- paths ----


def test_paths_in_a_file_are_relative_to_it_and_paths_in_overrides_to_the_working_directory(
    tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        (folder / "task").mkdir(parents=True)
    monkeypatch.chdir(there)
    tree["task"] = {"dataset": "task"}
    assert load(here, tree).task.dataset == str(here / "task")
    assert load(here, tree, "task.dataset=task").task.dataset == str(there / "task")
    assert load(here, tree, "task=task").task.dataset == str(there / "task")
    assert load(here, tree, "task={dataset: task}").task.dataset == str(there / "task")


def test_a_name_that_is_no_file_is_left_for_the_hub_but_an_explicit_path_is_not(
    tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    tree["teacher"]["model"] = "owner/teacher"
    assert load(tmp_path, tree).teacher.model == "owner/teacher"
    tree["teacher"]["model"] = "./not-there-yet"
    assert load(tmp_path, tree).teacher.model == str(tmp_path / "not-there-yet")


@pytest.mark.parametrize("override", ["training.batch_size=true", "data.neighbours.k=true", "seed=true"])
def test_a_boolean_is_not_a_number_in_a_recipe(recipe_file: Path, override: str) -> None:
    with pytest.raises(RecipeError, match=override.split("=")[0]):
        load_recipe(str(recipe_file), [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "task.labels=[no, yes]",
            r"task\.labels\.0 is false: YAML reads an unquoted yes, no, .* quote it: 'no', 'off'",
        ),
        ("task.text=on", r"task\.text is true: .* quote it: 'yes', 'on' or 'true'"),
        ("task.labels=[1, 2]", r"task\.labels\.0 is the number 1: quote it to make it a text: '1'"),
    ],
)
def test_a_word_that_yaml_takes_for_a_boolean_or_a_number_is_to_be_quoted(
    recipe_file: Path, override: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(recipe_file), [override])


@pytest.mark.parametrize("override", ["training.epochs=.inf", "training.kd.weight=.inf"])
def test_an_infinite_number_is_refused(recipe_file: Path, override: str) -> None:
    with pytest.raises(RecipeError, match="finite"):
        load_recipe(str(recipe_file), [override])


def test_an_exponent_without_a_point_is_a_number(recipe_file: Path) -> None:
    assert load_recipe(str(recipe_file), ["training.learning_rate=1e-4"]).training.learning_rate == 1e-4


@pytest.mark.parametrize("value", ["1", "0.5", "some"])
def test_labelled_is_a_number_of_texts(tmp_path: Path, tree: dict[str, Any], value: str) -> None:
    assert load(tmp_path, tree, "data.labelled=30").data.labelled == 30
    with pytest.raises(RecipeError, match=r"data\.labelled"):
        load(tmp_path, tree, f"data.labelled={value}")
