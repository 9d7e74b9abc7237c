"""A student trained from a transfer set that somebody else made: no teacher, no index, no corpus on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from augkd.data.cleaning import normalised
from augkd.data.given_transfer_set import locate_transfer_set
from augkd.data.transfer_set import TransferSet
from augkd.errors import DataError, RecipeError
from augkd.recipe import Recipe, load_recipe, load_transfer_set_recipe
from augkd.runs.controls import control
from augkd.runs.plan import plan
from augkd.runs.run import Run

SHORT = ("training.epochs=1", "training.max_length=32")


@pytest.fixture
def given(recipe_file: Path, tmp_path: Path) -> Path:
    """A transfer set alone in a folder, as if it had been downloaded; what it was made of is gone."""
    made = Run(load_recipe(str(recipe_file)), tmp_path / "elsewhere").transfer_set().folder
    folder = tmp_path / "downloaded"
    shutil.copytree(made / "data", folder / "data")
    for path in (tmp_path / "elsewhere", tmp_path / "task", tmp_path / "corpus.txt"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def test_a_student_is_trained_and_evaluated_from_a_transfer_set_alone(
    given: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    recipe = load_transfer_set_recipe(str(given), str(tiny_bert), overrides=SHORT)
    results = Run(recipe, tmp_path / "run").results()

    whole, used = TransferSet.open(given), TransferSet.open(tmp_path / "run/transfer_set")
    assert used.labels == whole.labels
    held_out = len(whole) - len(used)
    assert 0 < held_out < len(whole) / 3, "validation and test are cut from its labelled texts"
    assert set(used.column("id")) < set(whole.column("id"))
    assert results["teacher"]["validation"] is not None, "the held-out rows bring the teacher's logits"
    assert results["cost"]["teacher_rows"] == 0
    assert results["cost"]["training_rows"] == results["data"]["originals"] + results["data"]["candidates"]
    assert (tmp_path / "run/student/model.safetensors").is_file()


def test_no_candidate_of_the_copy_is_a_held_out_text(given: Path, tiny_bert: Path, tmp_path: Path) -> None:
    recipe = load_transfer_set_recipe(str(given), str(tiny_bert), overrides=SHORT)
    trained = Run(recipe, tmp_path / "run").task.train[0].id
    file = given / "data/train-00000.parquet"
    rows = pq.read_table(file).to_pylist()
    (owner,) = [row for row in rows if row["id"] == trained]
    texts = [row["text"] for row in rows]
    owner["candidates"] += [dict(owner["candidates"][0], text=text.upper(), id=text) for text in texts]
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file)

    run = Run(recipe, tmp_path / "run")
    held_out = {normalised(text) for text in run.task.evaluation_texts()}
    used = run.transfer_set()
    assert held_out
    assert not held_out & {normalised(text) for text in [*used.column("text"), *used.candidates().text]}
    excluded = json.loads((used.folder / "manifest.json").read_text())["data"]["excluded_evaluation_texts"]
    assert excluded == len(held_out)


def test_the_given_folder_is_never_written_to(given: Path, tiny_bert: Path, tmp_path: Path) -> None:
    before = sorted(path.relative_to(given) for path in given.rglob("*"))
    Run(load_transfer_set_recipe(str(given), str(tiny_bert), overrides=SHORT), tmp_path / "run").results()
    assert sorted(path.relative_to(given) for path in given.rglob("*")) == before


def test_selection_and_losses_of_a_recipe_apply_to_a_given_transfer_set(given: Path, tiny_bert: Path) -> None:
    recipe = load_transfer_set_recipe(str(given), str(tiny_bert), "minimax-knn")
    assert recipe.data.select == {"minimax": {"keep": 4}}
    assert recipe.data.neighbours is None
    assert recipe.student.model == str(tiny_bert)
    assert control(recipe, "kd").data.weight == 0.0, "vanilla KD is the same rows without their candidates"


def test_a_task_of_ones_own_evaluates_the_student(given: Path, tiny_bert: Path, tmp_path: Path) -> None:
    from support.tiny import sentences

    lines = {split: sentences(start)[:18] for split, start in (("train", 60), ("validation", 70), ("test", 80))}
    (tmp_path / "own").mkdir()
    for split, rows in lines.items():
        (tmp_path / f"own/{split}.csv").write_text(
            "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
        )
    recipe = load_transfer_set_recipe(str(given), str(tiny_bert), overrides=(f"task={tmp_path / 'own'}", *SHORT))
    results = Run(recipe, tmp_path / "run").results()
    assert results["data"]["originals"] == len(TransferSet.open(given)), "all its rows are trained on"
    assert results["teacher"]["validation"] is None, "nobody labelled these texts"
    assert results["student"]["test"] is not None


def test_a_labelled_text_that_is_a_test_text_of_the_own_task_stops_the_run(
    given: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    text = TransferSet.open(given).column("text")[0]
    (tmp_path / "own").mkdir()
    for split in ("train", "validation"):
        rows = "".join(f"{label} {n} of {split},{label}\n" for label in ("animal", "food", "tool") for n in range(5))
        (tmp_path / f"own/{split}.csv").write_text(f"text,label\n{rows}")
    (tmp_path / "own/test.csv").write_text(f"text,label\n{text.upper()},animal\n")
    recipe = load_transfer_set_recipe(str(given), str(tiny_bert), overrides=(f"task={tmp_path / 'own'}", *SHORT))
    with pytest.raises(DataError, match="is a validation or test text of the task"):
        Run(recipe, tmp_path / "run").transfer_set()


def test_what_cannot_be_combined_with_a_transfer_set_is_said_in_one_line(given: Path, tiny_bert: Path) -> None:
    with pytest.raises(RecipeError, match=r"student.*missing"):
        load_transfer_set_recipe(str(given), None)
    with pytest.raises(RecipeError, match=r"data\.transfer_set holds the teacher's logits; drop teacher"):
        load_transfer_set_recipe(str(given), str(tiny_bert), overrides=["teacher={model: other, epochs: 1}"])
    with pytest.raises(ValidationError, match="transfer_set holds all texts already; drop augmented_samples"):
        Recipe.model_validate(
            {
                "data": {"transfer_set": str(given), "augmented_samples": "x.jsonl"},
                "student": {"model": str(tiny_bert)},
                "training": {"kd": {}},
            }
        )
    with pytest.raises(RecipeError, match=r"student\.layers needs a teacher\.model"):
        load_transfer_set_recipe(str(given), None, overrides=["student={layers: [0]}"])


def test_a_folder_or_hub_name_that_is_not_there_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; give its folder, or a Hub name like owner/name"):
        locate_transfer_set(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="'owner/set' is not a folder and cannot be downloaded from the Hub"):
        locate_transfer_set("owner/set")


def test_check_plans_it_without_a_teacher(given: Path, tiny_bert: Path) -> None:
    lines = list(plan(load_transfer_set_recipe(str(given), str(tiny_bert))))
    assert "teacher       none needed: the transfer set holds its logits" in lines
    assert any(line.startswith(f"transfer set  {given}: ") for line in lines)
