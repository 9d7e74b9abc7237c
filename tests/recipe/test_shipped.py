"""Every shipped pipeline recipe is valid and runs from texts to results on a small sample of real text."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.chat_server import Say, chat_server

from augkd.data.task import load_task
from augkd.errors import ModelError, RecipeError
from augkd.recipe import Recipe, is_comparison, load_comparison, load_recipe, shipped_recipes
from augkd.runs.comparison import compare_tasks
from augkd.runs.controls import control
from augkd.runs.plan import plan, plan_comparison
from augkd.runs.run import Run
from augkd.workspace.progress import silent

pytestmark = pytest.mark.slow

NAMES = [name for name in shipped_recipes("pipelines") if not is_comparison(name)]


@pytest.fixture(scope="session")
def docstrings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training, 16 validation and 16 test docstrings of three topics, truncated."""
    folder = tmp_path_factory.mktemp("docstrings")
    task = load_task(dataset="augkd:docstrings")
    topics = sorted(task.labels)[:3]
    for split, count in (("train", 48), ("validation", 16), ("test", 16)):
        rows = [(e.text[:120], task.labels[int(e.label)]) for e in getattr(task, split) if e.label is not None]
        with (folder / f"{split}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *[row for row in rows if row[1] in topics][:count]])
    return folder


@pytest.fixture(scope="session")
def six_layers(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A random 6-layer BERT of width 16 with the bundled tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("six-layers")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=6, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the recipes keep their common teacher."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def small(docstrings: Path, six_layers: Path, corpus_file: Path) -> Any:
    """Loads a shipped recipe with the small sample as its task and the small teacher in place of MiniLM."""

    def load(name: str) -> Recipe:
        tree = load_recipe(name, [f"task.dataset={docstrings}", "training.max_length=32"]).model_dump(mode="json")
        tree["teacher"] |= {"model": str(six_layers), "learning_rate": 1e-3}
        for student in (tree["student"], *tree["assistants"]):
            if student["model"]:
                student["model"] = str(six_layers)
            for kind in ("bilstm", "static"):
                if student[kind]:
                    student[kind]["width"] = 8
        if tree["data"]["neighbours"]:
            tree["data"]["neighbours"]["index"] = {"corpus": {"dataset": str(corpus_file)}}
        if tree["data"]["labelled"]:
            tree["data"]["labelled"] = 24
        for source in ("generator", "substitution"):
            if tree["data"][source]:
                adapt = {"corpus": {"dataset": str(corpus_file)}, "steps": 4, "batch_size": 16}
                tree["data"][source] |= {"model": str(six_layers), "adapt": adapt}
        return Recipe.model_validate(tree)

    return load


@pytest.fixture
def served() -> Iterator[Any]:
    """Gives a recipe whose teacher is an LLM a server that finds the first option twice as probable as the others."""
    pytest.importorskip("openai")
    first = {"A": -0.7, "B": -1.4, "C": -1.4}
    with chat_server(lambda request, number: Say("A", first)) as server:

        def serve(recipe: Recipe) -> Recipe:
            tree = recipe.model_dump(mode="json")
            tree["teacher"]["endpoint"]["url"] = server.url
            return Recipe.model_validate(tree)

        yield serve


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_recipe_is_valid_and_runs_to_its_results(
    name: str, small: Any, shared: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    recipe = small(name)
    if recipe.teacher.endpoint is not None:
        recipe = request.getfixturevalue("served")(recipe)
    assert list(plan(recipe))
    results = Run(recipe, tmp_path / "run", shared).results()
    assert 0 <= results["student"]["test"] <= 1
    assert results["student"]["parameters"] > 0
    assert len(results.get("assistants", [])) == len(recipe.assistants)
    stages = {entry["stage"] for entry in json.loads((tmp_path / "run/student/log.json").read_text())}
    assert stages == set(range(1, len(recipe.training_stages) + 1))


def test_alp_logs_the_perplexity_of_its_attention_and_a_saved_student_has_no_projection(
    small: Any, shared: Path, tmp_path: Path
) -> None:
    recipe = small("alp-kd")
    tree = recipe.model_dump(mode="json") | {"student": {"scratch": {"layers": 2, "width": 24}}}
    tree["training"] |= {"batch_size": 4, "epochs": 2}
    Run(Recipe.model_validate(tree), tmp_path / "run", shared).results()
    log = json.loads((tmp_path / "run/student/log.json").read_text())
    perplexity = [value for entry in log for key, value in entry.items() if key.startswith("structure/alp_perplexity")]
    assert perplexity
    assert all(1 <= value <= 6 for value in perplexity)  # over six teacher layers
    from safetensors.numpy import load_file

    assert not [key for key in load_file(tmp_path / "run/student/model.safetensors") if "widen" in key]


def test_a_student_without_transformer_layers_has_none_to_match(small: Any, shared: Path, tmp_path: Path) -> None:
    tree = small("alp-kd").model_dump(mode="json") | {"student": {"static": {"width": 8}}}
    with pytest.raises(ModelError, match="has no transformer layers to match"):
        Run(Recipe.model_validate(tree), tmp_path / "run", shared).results()


def test_assistants_are_trained_once_each_and_share_the_teacher_of_the_run(small: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    results = Run(small("born-again"), out).results()
    assert sorted(path.parent.relative_to(out).as_posix() for path in out.rglob("log.json")) == [
        "assistants/1/student",
        "assistants/2/student",
        "student",
        "teacher",
    ]
    rows = [assistant["rows"]["training"] for assistant in results["assistants"]]
    assert results["cost"]["training_rows"] == sum(rows) + 48 * 4, "the assistants' rows are part of the cost"
    assert set(results["student"]["ensemble"]) == {"validation", "test", "test_interval"}


def test_a_loss_for_classes_is_refused_on_numbers_before_a_teacher_is_trained(
    small: Any, docstrings: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "numbers"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = (docstrings / f"{split}.csv").read_text().splitlines()
        lines = [row.rsplit(",", 1)[0] + f",{number / 7}" for number, row in enumerate(rows[1:]) if row.count('"') == 0]
        (folder / f"{split}.csv").write_text("text,label\n" + "\n".join(line for line in lines if line.count(",") == 1))
    recipe = small("tf-kd")
    numbers = recipe.model_copy(update={"task": recipe.task.model_copy(update={"dataset": str(folder)})})
    with pytest.raises(RecipeError, match="loss 'tf_kd' needs classes"):
        Run(numbers, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="loss 'tf_kd' needs classes"):
        list(plan(numbers))


def test_a_comparison_runs_its_recipes_on_its_tasks_and_compares_with_the_baseline(
    docstrings: Path, six_layers: Path, tmp_path: Path
) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(f"recipes: [no-kd, kd]\ntasks: [{docstrings}]\nseeds: 2\nset: [training.max_length=32]\n")
    overrides = [f"teacher.model={six_layers}", "training.epochs=1", "teacher.epochs=1"]
    comparison, recipes = load_comparison(str(path), overrides)
    assert list(recipes) == ["no-kd", "kd"]
    assert any("2 recipes × 2 seeds" in line for line in plan_comparison(comparison, recipes))
    (value,), average = compare_tasks(comparison, recipes, None, tmp_path / "out", silent)
    assert value["baseline"] == "kd"
    rows = {row["recipe"]: row for row in value["rows"]}
    tests = {name: [run["student"]["test"] for run in runs] for name, runs in value["runs"].items()}
    assert rows["no-kd"]["difference"]["values"] == [a - b for a, b in zip(tests["no-kd"], tests["kd"], strict=True)]
    assert rows["kd"]["difference"]["mean"] is None
    assert value["left_out"] == []
    assert average is None, "there is one task only"


@pytest.mark.parametrize("name", ["annealing-kd", "tinybert", "takd", "freelb", "alp-kd"])
def test_the_control_without_distillation_learns_from_labels_alone(name: str) -> None:
    recipe = load_recipe(name)
    plain = control(recipe, "no-kd")
    assert [stage.losses for stage in plain.training_stages] == [{"ce": {"weight": 1.0}}]
    assert plain.training_stages[0].epochs == sum(stage.epochs for stage in recipe.training_stages)
    assert (plain.structure, plain.assistants, plain.training.freelb) == (None, [], None)


def test_a_saved_student_of_another_architecture_can_be_loaded(small: Any, shared: Path, tmp_path: Path) -> None:
    run = Run(small("bilstm"), tmp_path / "run", shared)
    run.results()
    code = (
        "import sys; from augkd.models.classifier import load_classifier;"
        "print(type(load_classifier(sys.argv[1], tuple(sys.argv[2:]), 32).model).__name__)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run/student"), *run.labels]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "BiLSTMForSequenceClassification"


def test_an_unknown_baseline_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("recipes: [kd, takd]\ntasks: [x]\nbaseline: tadk\n")
    with pytest.raises(RecipeError, match="baseline 'tadk' is not one of the recipes; did you mean 'takd'"):
        load_comparison(str(path))
