"""The cards contain what manifests and results hold, in the Hub's own format, and nothing of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard
from support.finished_run import LABELS, RECIPE, finished_run, rows

from augkd.data.transfer_set import TransferSet, in_memory, write_card, write_rows
from augkd.errors import WorkspaceError
from augkd.recipe import Recipe, dump, load_recipe
from augkd.runs.card_metadata import hub_name
from augkd.runs.cards import as_written, portable, write_cards


def student_text(out: Path) -> str:
    return (out / "student" / "README.md").read_text()


def test_the_hub_reads_scores_and_origin_from_the_metadata_of_the_student_card(tmp_path: Path) -> None:
    write_cards(finished_run(tmp_path))
    data = ModelCard(student_text(tmp_path)).data  # parsed and checked as the Hub does
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.metric_name) == ("matthews_correlation", 0.8125, "matthews")
    assert (result.dataset_name, result.dataset_split, result.task_type) == ("polls", "test", "text-classification")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.datasets == ["owner/reviews"], "the corpus is the Hub's, the task a folder"
    assert data.metrics == ["matthews_correlation"]
    assert (data.license, data.language) == (None, None), "the recipe gives neither"
    assert data.tags == ["augkd", "knowledge-distillation"]


def test_terms_come_from_the_recipe_and_are_unknown_without_it(tmp_path: Path) -> None:
    card = {"license": "mit", "data_license": "cc-by-nc-4.0", "language": "en"}
    given, missing = tmp_path / "given", tmp_path / "missing"
    write_cards(finished_run(given, {**RECIPE, "card": card}))
    write_cards(finished_run(missing))
    assert ModelCard(student_text(given)).data.license == "mit"
    assert ModelCard(student_text(given)).data.language == "en"
    assert "Licence: mit." in student_text(given)
    assert DatasetCard((given / "transfer_set" / "README.md").read_text()).data.license == "cc-by-nc-4.0"
    assert "Licence: unknown." in student_text(missing)
    assert "Licence: unknown." in (missing / "transfer_set" / "README.md").read_text()


def test_the_student_card_has_scores_sources_and_limitations(tmp_path: Path) -> None:
    text = student_text(write_cards(finished_run(tmp_path))[0].parent.parent)
    assert "| teacher | 0.7500 | 0.9000 | – | 1,234,567 |" in text
    assert "| this student | 0.7500 | 0.8125 | 0.7000 to 0.9000 | 1,234,567 |" in text
    assert "- candidates from `generator`: 1" in text
    assert "- candidates from `neighbours`: 3" in text
    assert "a training step uses 1 per labelled text, selected by `minimax`" in text
    assert "equal to a validation or test text: 7" in text
    assert "near copies" not in text, "this run did not count them"
    assert "The maximum length is 64 tokens" in text
    assert "assigns texts to 2 classes (no, yes)" in text
    assert "initialised from the teacher's layers 0, 5, counted from 0" in text


def test_the_recipe_in_the_card_loads_and_equals_the_run_s(tmp_path: Path) -> None:
    write_cards(finished_run(tmp_path))
    block = student_text(tmp_path).split("```yaml\n")[1].split("```")[0]
    (tmp_path / "recipe.yaml").write_text(block)
    loaded = load_recipe(str(tmp_path / "recipe.yaml"), ["task.dataset=/home/ann/data/polls"])
    assert dump(loaded) == dump(Recipe.model_validate(RECIPE))
    assert "seed" not in block, "a default is left out"
    assert as_written(Recipe.model_validate(RECIPE))["task"] == {"dataset": "polls"}


def test_no_card_names_a_folder_of_this_machine(tmp_path: Path) -> None:
    recipe = {**RECIPE, "teacher": {"model": "/home/ann/models/big"}, "data": {"augmented_samples": "~/more.jsonl"}}
    for path in write_cards(finished_run(tmp_path, recipe)):
        assert "/home" not in path.read_text()
        assert "~" not in path.read_text()
        assert str(tmp_path) not in path.read_text()
    assert "base_model" not in student_text(tmp_path).split("---")[1]


def test_the_same_run_has_the_same_cards_and_no_times(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_cards(finished_run(tmp_path / "one"))]
    assert first == [path.read_bytes() for path in write_cards(finished_run(tmp_path / "two"))]
    assert b"second" not in first[0]


@pytest.mark.parametrize(("kind", "imported"), [("bert", False), ("augkd_static", True), ("augkd_bilstm", True)])
def test_the_usage_of_each_kind_of_student_compiles(tmp_path: Path, kind: str, imported: bool) -> None:
    write_cards(finished_run(tmp_path, config={"model_type": kind}))
    block = student_text(tmp_path).split("```python\n")[1].split("```")[0]
    compile(block, "card", "exec")
    assert ("augkd.register_models()" in block) is imported
    assert ModelCard(student_text(tmp_path)).data.library_name == ("augkd" if imported else "transformers")


def test_pairs_and_regressions_have_their_own_usage(tmp_path: Path) -> None:
    regression = {"id2label": {"0": "LABEL_0"}}
    write_cards(finished_run(tmp_path, config=regression, pair="other", labels=()))
    text = student_text(tmp_path)
    assert "rates pairs of texts" in text
    assert "not calibrated" not in text, "a number is no probability"
    assert '{"text": "the first text", "text_pair": "the second"}, truncation=True)' in text
    assert "labels: numbers from 0 to 1" in (tmp_path / "transfer_set" / "README.md").read_text()


def test_an_unfinished_run_has_no_card(tmp_path: Path) -> None:
    finished_run(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(WorkspaceError, match="unfinished"):
        write_cards(tmp_path)
    assert not (tmp_path / "student" / "README.md").exists()


def test_a_transfer_set_s_card_counts_its_rows_and_lets_datasets_find_them(tmp_path: Path) -> None:
    from datasets import load_dataset

    write_rows(tmp_path, iter(rows()), LABELS)
    write_card(tmp_path, "polls", ["excluded evaluation texts: 7"])
    text = (tmp_path / "README.md").read_text()
    assert "- labelled texts: 3\n" in text
    assert "(`neighbours`): 3\n" in text
    assert "(`generator`): 1\n" in text
    assert "- labels: no 2, yes 1\n" in text
    assert "- excluded evaluation texts: 7\n" in text
    head = yaml.safe_load(text.split("---")[1])
    assert head["size_categories"] == ["n<1K"]
    assert "license" not in head
    for name in pq.read_schema(tmp_path / "data" / "train-00000.parquet").names:
        assert f"`{name}`" in text, "every column is explained"
    loaded = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["id"] == ["train-0", "train-1", "train-2"]


def test_a_transfer_set_without_candidates_says_so(tmp_path: Path) -> None:
    bare = [{**row, "candidates": []} for row in rows()]
    write_rows(tmp_path, iter(bare), LABELS)
    write_card(tmp_path, "polls", [])
    assert "- candidates: none\n" in (tmp_path / "README.md").read_text()
    assert len(TransferSet.open(tmp_path)) == len(in_memory(bare, LABELS))


def test_hub_names_are_distinguished_from_paths_and_absolute_paths_are_reduced() -> None:
    assert hub_name("owner/name") == "owner/name"
    assert [hub_name(name) for name in ("/abs/path", "augkd:docstrings", "a/b/c", "bare", None)] == [None] * 5
    assert portable({"a": ["/home/x/y.txt", 1, "rel/path"]}) == {"a": ["y.txt", 1, "rel/path"]}
    assert json.dumps(portable("~/secret/z")) == '"z"'


def test_cards_and_uploads_name_no_bucket_and_keep_names_on_the_hub() -> None:
    tree = {"task": {"dataset": "s3://private/tasks/polls"}, "index": ["gs://private/index", "hf://datasets/a/b"]}
    assert portable(tree) == {"task": {"dataset": "polls"}, "index": ["index", "hf://datasets/a/b"]}
