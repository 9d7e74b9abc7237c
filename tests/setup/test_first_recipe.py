"""`augkd init` writes a recipe for a user's files that `augkd check` accepts as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import Augkd
from support.tables import labelled, table

from augkd.errors import WorkspaceError
from augkd.recipe import load_recipe
from augkd.retrieval.dense.size import EXACT_UP_TO
from augkd.runs.plan import plan
from augkd.setup.first_recipe import STATIC_FROM, K, choose, recipe_text, write_recipe
from augkd.setup.summary import summary
from augkd.setup.survey import survey_corpus, survey_task


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


def test_check_accepts_the_recipe_and_shows_what_was_found(tmp_path: Path, corpus_file: Path) -> None:
    data = labelled(tmp_path / "my.csv", ("question", "topic"))
    task = survey_task(data)
    corpus = survey_corpus(str(corpus_file), task)
    write_recipe(tmp_path / "my.yaml", task, corpus, data)
    recipe = load_recipe(str(tmp_path / "my.yaml"))
    assert (recipe.task.dataset, recipe.task.text, recipe.task.label) == (data, "question", "topic")
    chosen = choose(task, corpus)
    assert recipe.data.neighbours is not None
    assert (recipe.data.neighbours.k, recipe.data.neighbours.sample) == (K, "used")
    kept = {"minimax": {"keep": chosen.keep, "of": 4 * chosen.keep}}
    assert (recipe.data.select, recipe.data.weight) == (kept, chosen.keep)
    assert recipe.structure is not None
    assert (recipe.structure.pooling, *recipe.structure.losses) == ("mean", "alp")
    assert recipe.training.max_length == chosen.max_length == 32
    lines = list(plan(recipe))
    assert any("3 classes: animal, food, tool" in line for line in lines)
    text = (tmp_path / "my.yaml").read_text()
    assert "dataset: my.csv" in text, "a path below the recipe's folder is relative to it"
    assert text.splitlines()[0].startswith("# my: ")


def test_without_a_corpus_the_recipe_is_plain_distillation(tmp_path: Path) -> None:
    data = labelled(tmp_path / "my.csv")
    write_recipe(tmp_path / "my.yaml", survey_task(data), None, data)
    recipe = load_recipe(str(tmp_path / "my.yaml"))
    assert not recipe.data.has_candidates
    assert recipe.structure is None
    assert set(recipe.training.losses) == {"kd", "ce"}


def test_names_that_would_break_yaml_or_end_a_comment_are_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "odd: name #1"
    folder.mkdir()
    rows = [(f"text {n}", ("yes\nmodel: evil", "no # {[")[n % 2]) for n in range(60)]
    data = table(folder / "it's.csv", ["the: text", "null"], rows)
    task = survey_task(data, text="the: text", label="null")
    write_recipe(tmp_path / "r.yaml", task, None, data)
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert (recipe.task.dataset, recipe.task.text, recipe.task.label) == (data, "the: text", "null")
    assert len(list(plan(recipe))) > 3
    assert all("\n" not in line for line in summary(task, None))


def test_the_recipe_of_a_regression_has_no_temperature_and_matches_no_layers(tmp_path: Path, corpus_file: Path) -> None:
    data = table(tmp_path / "a.csv", ["text", "score"], [(f"text {n}", n / 4) for n in range(60)])
    task = survey_task(data)
    write_recipe(tmp_path / "r.yaml", task, survey_corpus(str(corpus_file), task), data)
    text = (tmp_path / "r.yaml").read_text()
    assert "a regression task" in text
    assert "temperature" not in text
    assert "structure" not in text
    assert len(list(plan(load_recipe(str(tmp_path / "r.yaml"))))) > 3


def test_the_same_files_give_the_same_recipe(tmp_path: Path) -> None:
    data = labelled(tmp_path / "my.csv")
    assert recipe_text(survey_task(data), None, data, tmp_path) == recipe_text(survey_task(data), None, data, tmp_path)


def test_more_data_means_fewer_epochs_and_a_larger_corpus_another_index(tmp_path: Path, corpus_file: Path) -> None:
    from dataclasses import replace

    data = labelled(tmp_path / "my.csv")
    task = survey_task(data)
    many = replace(task, task=replace(task.task, train=task.task.train * 1000))
    assert choose(task, None).epochs > choose(many, None).epochs
    corpus = survey_corpus(str(corpus_file), task)
    assert choose(task, corpus).layers
    assert not choose(many, corpus).layers, "the layers of all neighbours would take gigabytes"
    pairs = [replace(example, text_pair="b") for example in task.task.train]
    assert not choose(replace(task, task=replace(task.task, train=pairs)), corpus).layers, "not measured on pairs"
    exact = recipe_text(task, replace(corpus, texts=EXACT_UP_TO), data, tmp_path)
    assert "exact search" in exact
    assert "static" not in exact
    huge = recipe_text(task, replace(corpus, texts=STATIC_FROM + 1, complete=False), data, tmp_path)
    assert "approximate index" in huge
    assert "{kind: static, rerank: 100}" in huge
    assert "# about 2,000,001 texts" in huge


# ---- the command ----


def test_init_writes_a_recipe_and_overwrites_none_without_force(
    augkd: Augkd, tmp_path: Path, corpus_file: Path
) -> None:
    data, out = labelled(tmp_path / "my.csv", ("remark", "kind")), tmp_path / "my.yaml"
    done = augkd("init", data, "--corpus", corpus_file, "--out", out)
    assert (done.code, done.err) == (0, "")
    assert "label column 'kind': fewest distinct values, 3 in" in done.out
    assert f"  augkd check {out}" in done.out.splitlines()
    assert augkd("check", out).code == 0

    before = out.read_bytes()
    again = augkd("init", data, "--out", out)
    assert again.code == 1
    assert again.err == f"error: {out} already exists; give another --out, or --force to replace it\n"
    assert out.read_bytes() == before
    forced = augkd("init", data, "--out", out, "--force", "--json")
    assert forced.json["recipe"] == out.read_text()
    assert out.read_bytes() != before
    assert forced.json["splits"] == {"train": 72, "validation": 9, "test": 9}
    assert sum(forced.json["classes"].values()) == 72


def test_an_existing_recipe_is_not_replaced(tmp_path: Path) -> None:
    data = labelled(tmp_path / "my.csv")
    (tmp_path / "my.yaml").write_text("mine")
    with pytest.raises(WorkspaceError, match="already exists"):
        write_recipe(tmp_path / "my.yaml", survey_task(data), None, data)
    assert (tmp_path / "my.yaml").read_text() == "mine"
