"""Several labels per text, from files to a shipped student: what is trained, scored, stored, reported and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from safetensors.numpy import load_file
from support.several import EMOTIONS, emotional, write_emotions

from augkd.data.transfer_set import TransferSet
from augkd.errors import RecipeError
from augkd.evaluation.predictions import read_predictions
from augkd.evaluation.report.report import write_report
from augkd.models.classifier import load_classifier
from augkd.recipe import load_recipe, load_transfer_set_recipe
from augkd.runs.comparison import compare_recipes
from augkd.runs.plan import plan
from augkd.runs.run import Run

RECIPE = """\
task: {{dataset: task}}
teacher: {{model: {model}, epochs: 20, learning_rate: 6.0e-3, batch_size: 16}}
student: {{layers: [0, 2]}}
data:
  neighbours: {{index: {{corpus: {{dataset: corpus.txt}}, encoder: {{max_length: 32}}}}, k: 4}}
  select: {{minimax: {{keep: 2}}}}
training:
  {{kd: {{weight: 0.5}}, ce: {{weight: 0.5}}, epochs: 3, learning_rate: 2.0e-3, max_length: 32, precision: float32}}
structure: {{alp: {{weight: 0.1}}}}
"""
SMOOTHED = "training={label_smoothing: {}, reverse_kd: {}, epochs: 1, max_length: 32}"
ANNEALING = "training={max_length: 32, stages: [{annealed: {}, epochs: 1}, {ce: {}, epochs: 1}]}"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than models of width 32."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("several")
    write_emotions(folder / "task", train=160)
    corpus = "\n".join(row["text"] for row in emotional(150, seed=9)) + "\n"
    (folder / "corpus.txt").write_text(corpus)
    (folder / "recipe.yaml").write_text(RECIPE.format(model=tiny_bert))
    return folder


@pytest.fixture(scope="module")
def out(place: Path) -> Path:
    """A finished run with minimax and an intermediate-layer loss."""
    run(place, "run")
    return place / "run"


def run(place: Path, out: str, *sets: str) -> dict[str, Any]:
    results: Any = Run(load_recipe(str(place / "recipe.yaml"), sets), place / out).results()
    return dict(results)


def test_the_student_learns_all_labels_and_is_scored_as_scikit_learn_scores_it(out: Path) -> None:
    results = json.loads((out / "results.json").read_text())
    stored = load_file(out / "student" / "predictions.safetensors")
    real, limits = stored["test_labels"], stored["thresholds"]
    assert real.shape == (40, len(EMOTIONS))
    chosen = 1 / (1 + np.exp(-stored["test"].astype(np.float64))) > limits
    wanted = sklearn.metrics.f1_score(real, chosen, average="micro")
    assert results["metric"] == "micro_f1"
    assert results["student"]["test"] == pytest.approx(wanted)
    teacher = 1 / (1 + np.exp(-stored["teacher_test"].astype(np.float64))) > stored["teacher_thresholds"]
    assert results["teacher"]["test"] == pytest.approx(sklearn.metrics.f1_score(real, teacher, average="micro"))
    every_label_always = sklearn.metrics.f1_score(real, np.ones_like(real), average="micro")
    assert wanted > every_label_always + 0.1


def test_the_transfer_set_holds_lists_of_names_and_opens_again(out: Path) -> None:
    transfer = TransferSet.open(out / "transfer_set")
    assert (transfer.labels, transfer.target.multi_label) == (EMOTIONS, True)
    assert transfer.column("label") == [sorted(row["label"]) for row in emotional(160)]
    card = (out / "transfer_set" / "README.md").read_text()
    counts = {name: sum(name in row["label"] for row in emotional(160)) for name in EMOTIONS}
    assert "labels: " + ", ".join(f"{name} {count}" for name, count in counts.items()) in card


def test_the_pipeline_gives_the_probability_of_every_label(out: Path) -> None:
    from transformers import pipeline

    config = json.loads((out / "student" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    stored = load_file(out / "student" / "predictions.safetensors")
    assert config["thresholds"] == dict(zip(EMOTIONS, stored["thresholds"].tolist(), strict=True))
    texts = [row["text"] for row in emotional(40, seed=2)]
    answers = pipeline("text-classification", str(out / "student"))(texts, top_k=None)
    wanted = 1 / (1 + np.exp(-stored["test"].astype(np.float64)))
    for answer, row in zip(answers, wanted, strict=True):
        scores = {entry["label"]: entry["score"] for entry in answer}
        assert [scores[name] for name in EMOTIONS] == pytest.approx(row.tolist(), abs=1e-5)
    assert max(sum(entry["score"] for entry in answer) for answer in answers) > 1.01, "not a softmax"


def test_the_card_names_labels_thresholds_and_how_to_ask_for_all_of_them(out: Path) -> None:
    card = (out / "student" / "README.md").read_text()
    thresholds = json.loads((out / "student" / "config.json").read_text())["thresholds"]
    assert "gives texts any number of 4 labels (anger, fear, joy, surprise)" in card
    assert 'print(classify("a text", truncation=True, top_k=None))' in card
    assert ", ".join(f"{name} {value:.3f}" for name, value in thresholds.items()) in card
    assert "multi-label-classification" in card


def test_the_report_has_a_table_of_labels_with_their_precision_and_recall(out: Path) -> None:
    page = write_report(out).read_text()
    predictions = read_predictions(out / "student", "test")
    assert predictions is not None
    chosen = predictions.target.predictions(predictions.student)
    recall = sklearn.metrics.recall_score(predictions.labels, chosen, average=None, zero_division=0)
    assert "Labels of the student, at its own thresholds" in page
    table = page[page.index("Labels of the student, at its own thresholds") :]
    for name, value in zip(EMOTIONS, recall, strict=True):
        row = table[table.index(f'<th scope="row" dir="auto">{name}</th>') :].split("</tr>")[0]
        assert f"{100 * value:.1f}" in row


def test_an_ensemble_of_assistants_averages_the_probabilities_of_each_label(place: Path, out: Path) -> None:
    results = run(
        place,
        "assisted",
        "assistants=[{layers: [0, 1]}]",
        "ensemble=true",
        "training.epochs=1",
        "structure=null",
        f"teacher.model={out / 'teacher'}",
        "teacher.epochs=0",
    )
    assert 0 <= results["student"]["ensemble"]["test"] <= 1


def test_a_student_is_trained_from_a_transfer_set_of_several_labels_alone(
    out: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    overrides = ("training.epochs=1", "training.max_length=32")
    recipe = load_transfer_set_recipe(str(out / "transfer_set"), str(tiny_bert), overrides=overrides)
    results = Run(recipe, tmp_path / "given").results()
    assert results["metric"] == "micro_f1"
    assert TransferSet.open(tmp_path / "given/transfer_set").target.multi_label


@pytest.mark.parametrize(
    "sets",
    [
        (ANNEALING, "structure=null"),
        ("training={logit_regression: {}, epochs: 1, max_length: 32}", "structure={pkd: {weight: 1.0}}"),
        (
            "training={label_smoothing: {}, reverse_kd: {}, epochs: 1}",
            "student={bilstm: {width: 16}}",
            "structure=null",
        ),
    ],
    ids=["annealing", "mse-pkd", "smoothing-bilstm"],
)
def test_other_losses_and_students_train_on_several_labels(place: Path, out: Path, sets: tuple[str, ...]) -> None:
    name = f"other-{len(sets[0])}"
    results = run(place, name, f"teacher={{model: {out / 'teacher'}}}", *sets)
    assert 0 <= results["student"]["test"] <= 1
    student = load_classifier(str(place / name / "student"), EMOTIONS, 32, precision="float32")
    assert student.model.config.problem_type == "multi_label_classification"


@pytest.mark.slow
def test_the_generator_ascends_the_divergence_of_several_labels(place: Path, out: Path, tiny_bert: Path) -> None:
    adapt = f"{{corpus: {place / 'corpus.txt'}, steps: 4}}"
    generator = f"data={{generator: {{model: {tiny_bert}, adapt: {adapt}, ascend: 2, every: 4}}, select: everything}}"
    sets = (f"teacher={{model: {out / 'teacher'}}}", generator, "structure=null", "training.batch_size=4")
    results = run(place, "generated", *sets)
    assert results["cost"]["generator_rows"] > 0
    log = json.loads((place / "generated" / "student" / "log.json").read_text())
    assert any(entry.get("generator/divergence", 0) > 0 for entry in log)


def test_recipes_are_compared_on_several_labels(place: Path, out: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        str(place / "recipe.yaml"), [f"teacher={{model: {out / 'teacher'}}}", "structure=null", "training.epochs=1"]
    )
    other = recipe.model_copy(update={"seed": 7})
    summary = compare_recipes({"first": recipe, "second": other}, 2, tmp_path / "compare")
    assert summary["metric"] == "micro_f1"


def test_a_loss_that_needs_one_class_per_text_is_refused_before_anything_runs(place: Path) -> None:
    recipe = load_recipe(str(place / "recipe.yaml"), ["training={cwtm: {}, epochs: 1}"])
    message = "loss 'cwtm' needs one class per text, but this task is multi-label; use kd or annealed"
    with pytest.raises(RecipeError, match=message):
        list(plan(recipe))
    good = list(plan(load_recipe(str(place / "recipe.yaml"))))
    assert any("4 labels, any number of them per text: anger, fear, joy, surprise; metric micro_f1" in x for x in good)
