"""A recipe from texts to a student: what is written, what is counted, what is repeated and what is not."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from support.tiny import LABELS, sentences

from augkd.data.cleaning import normalised
from augkd.data.transfer_set import TransferSet
from augkd.errors import DataError, RecipeError
from augkd.recipe import load_recipe
from augkd.retrieval.dense.retriever import DenseRetriever
from augkd.retrieval.open import open_index
from augkd.runs.run import Run

ORIGINALS, EPOCHS, K, KEEP = 90, 2, 4, 2


def rows_to(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than models of width 32: 10 × on two busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with the tiny task, a corpus in which all 18 test texts are planted in capitals, and the recipe."""
    folder = tmp_path_factory.mktemp("pipeline")
    for split, rows in (("train", sentences(0)), ("validation", sentences(10)[:18]), ("test", sentences(20)[:18])):
        rows_to(folder / "task" / f"{split}.csv", ("text", "label"), rows)
    lines = [f"{text} and {number}" for number in range(2) for text, _ in sentences(40 + number)]
    planted = [text.upper() for text, _ in sentences(20)[:18]]
    (folder / "corpus.txt").write_text("\n".join([*lines, *planted]) + "\n")
    (folder / "recipe.yaml").write_text(
        f"""\
task: {{dataset: task}}
teacher: {{model: {tiny_bert}, epochs: 1, learning_rate: 1.0e-3}}
student: {{layers: [0, 2]}}
data:
  neighbours: {{index: {{corpus: {{dataset: corpus.txt}}, encoder: {{max_length: 32}}}}, k: {K}}}
  select: {{minimax: {{keep: {KEEP}}}}}
training: {{kd: {{weight: 0.5, temperature: 2.0}}, ce: {{weight: 0.5}}, epochs: {EPOCHS}, max_length: 32}}
"""
    )
    return folder


def run(place: Path, out: str, *sets: str, shared: str | None = None, recipe: str = "recipe.yaml") -> dict[str, Any]:
    parsed = load_recipe(str(place / recipe), sets)
    return Run(parsed, place / out, place / shared if shared else None, name="recipe").results()


@pytest.fixture(scope="module")
def results(place: Path) -> dict[str, Any]:
    """The results of the recipe, run in `place/first`."""
    return run(place, "first")


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Contents of the files that must not depend on when and where they were made."""
    names = ("*.safetensors", "*.parquet", "*.faiss", "*.arrow", "tokenizer.json")
    found = sorted(path for pattern in names for path in folder.rglob(pattern))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def ages(folder: Path) -> dict[str, int]:
    """Modification times of what stages write, results and locks aside."""
    stages = ("index", "teacher", "teacher_logits", "transfer_set", "student")
    files = (path for stage in stages for path in (folder / stage).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in files}


# ---- what is written ----


def test_results_have_exactly_the_documented_keys(place: Path, results: dict[str, Any]) -> None:
    assert json.loads((place / "first" / "results.json").read_text()) == results
    assert list(results) == ["task", "metric", "seed", "recipe", "teacher", "student", "data", "cost", "versions"]
    assert set(results["teacher"]) == {"validation", "test", "parameters"}
    assert set(results["student"]) == {"validation", "test", "test_interval", "parameters"}
    assert set(results["data"]) == {
        "originals",
        "candidates",
        "candidates_unique",
        "excluded_evaluation_texts",
        "excluded_near_copies",
        "outside_teacher_bounds",
        "too_far_from_original",
        "generated_per_original",
        "kept_per_original",
        "selector",
    }
    assert set(results["cost"]) == {
        *("teacher_rows", "generator_rows", "scoring_rows", "training_rows", "seconds", "peak_rss_bytes")
    }
    assert set(results["cost"]["seconds"]) == {"index", "teacher", "transfer_set", "student"}
    assert {"augkd", "torch", "transformers", "numpy"} <= set(results["versions"])
    named = {key: results[key] for key in ("task", "metric", "seed", "recipe")}
    assert named == {"task": "task", "metric": "accuracy", "seed": 0, "recipe": "recipe"}


def test_rows_are_counted_exactly(results: dict[str, Any]) -> None:
    data, cost = results["data"], results["cost"]
    assert (data["originals"], data["candidates"], data["kept_per_original"]) == (ORIGINALS, ORIGINALS * K, KEEP)
    assert cost["scoring_rows"] == ORIGINALS * K * EPOCHS
    assert cost["training_rows"] == ORIGINALS * (1 + KEEP) * EPOCHS
    assert cost["teacher_rows"] == ORIGINALS + data["candidates_unique"], "each distinct text once"
    assert 50e6 < cost["peak_rss_bytes"] < 1e12


def test_parameters_are_those_of_the_saved_weights(place: Path, results: dict[str, Any]) -> None:
    from safetensors.numpy import load_file

    for stage in ("teacher", "student"):
        weights = load_file(place / "first" / stage / "model.safetensors")
        assert results[stage]["parameters"] == sum(value.size for value in weights.values())
    assert results["student"]["parameters"] < results["teacher"]["parameters"]


def test_an_index_that_was_built_costs_its_building_not_its_second_opening(results: dict[str, Any]) -> None:
    # 198 texts through MiniLM take many times as long as opening an index of 198 vectors
    assert results["cost"]["seconds"]["index"] > 0.3


def test_evaluation_texts_in_the_corpus_are_counted_and_never_candidates(place: Path, results: dict[str, Any]) -> None:
    planted = {normalised(text) for text, _ in sentences(20)[:18]}
    rows = TransferSet.open(place / "first" / "transfer_set").table.to_pylist()
    assert {normalised(c["text"]) for row in rows for c in row["candidates"]} & planted == set()

    # independently: rank the whole corpus for each text, walk down until K are usable
    index = open_index(place / "first" / "index")
    assert isinstance(index, DenseRetriever)
    lines = index.texts(np.arange(len(index)))
    texts, corpus = [normalised(line) for line in lines], index.encode(lines)
    met, plain = set(), set()
    for query, row in zip(index.encode([row["text"] for row in rows]), rows, strict=True):
        usable = 0
        for rank, place_ in enumerate(np.argsort(-(corpus @ query), kind="stable")):
            if usable == K:
                break
            text = texts[place_]
            met |= {text} & planted
            plain |= {text} & planted if rank < K else set()
            usable += text not in planted and text != normalised(row["text"])
    assert plain, "without exclusion some would have been candidates"
    assert results["data"]["excluded_evaluation_texts"] == len(met)


def test_the_student_opens_as_a_transformers_pipeline_with_the_label_names(
    place: Path, results: dict[str, Any]
) -> None:
    from transformers import pipeline

    classify = pipeline("text-classification", str(place / "first" / "student"), top_k=None)
    assert classify.model.config.id2label == dict(enumerate(LABELS))
    texts = [text for text, _ in sentences(20)[:18]]
    answers = classify(texts)
    best = [max(answer, key=lambda entry: entry["score"])["label"] for answer in answers]
    accuracy = float(np.mean([guess == label for guess, (_, label) in zip(best, sentences(20), strict=False)]))
    assert accuracy == pytest.approx(results["student"]["test"])


def test_the_transfer_set_opens_with_datasets(place: Path, results: dict[str, Any], tmp_path: Path) -> None:
    from datasets import load_dataset

    loaded = load_dataset(str(place / "first" / "transfer_set"), split="train", cache_dir=str(tmp_path))
    assert loaded.num_rows == ORIGINALS
    assert loaded["text"][:3] == [text for text, _ in sentences(0)[:3]]
    assert loaded["label"][:3] == ["animal"] * 3
    assert {len(row) for row in loaded["candidates"]} == {K}
    assert {len(row) for row in loaded["teacher_logits"]} == {3}


# ---- what is repeated ----


def test_a_second_run_repeats_no_stage(place: Path, results: dict[str, Any]) -> None:
    before = ages(place / "first")
    started = time.perf_counter()
    again = run(place, "first")
    assert time.perf_counter() - started < sum(results["cost"]["seconds"].values())
    assert ages(place / "first") == before
    for part in ("teacher", "student", "data"):
        assert again[part] == results[part]


def test_another_learning_rate_retrains_the_student_and_nothing_else(place: Path, results: dict[str, Any]) -> None:
    shutil.copytree(place / "first", place / "rate", copy_function=shutil.copy2)
    before = ages(place / "rate")
    run(place, "rate", "training.learning_rate=0.003")
    after = ages(place / "rate")
    changed = {name.split("/")[0] for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"student"}
    weights = "student/model.safetensors"
    assert (place / "rate" / weights).read_bytes() != (place / "first" / weights).read_bytes()


def test_the_same_recipe_and_seed_give_the_same_bytes_elsewhere_and_another_seed_shares_the_stages(
    place: Path, results: dict[str, Any]
) -> None:
    same = run(place, "seed-0", shared="shared")
    assert ages(place / "seed-0").keys() <= {f"student/{path.name}" for path in (place / "seed-0/student").iterdir()}
    shared = bytes_of(place / "shared")
    other = run(place, "seed-1", "seed=1", shared="shared")
    assert bytes_of(place / "shared") == shared, "the other seed added and changed nothing"

    for stage in ("index", "teacher", "transfer_set"):
        (folder,) = (place / "shared").glob(f"{stage}-*")
        assert bytes_of(folder) == bytes_of(place / "first" / stage) != {}
    assert bytes_of(place / "seed-0" / "student") == bytes_of(place / "first" / "student")
    assert bytes_of(place / "seed-1" / "student") != bytes_of(place / "first" / "student")
    assert (same["seed"], other["seed"]) == (0, 1)
    assert same["student"] == results["student"]
    assert same["teacher"] == other["teacher"] == results["teacher"]


# ---- fewer labels for the student than for the teacher ----


@pytest.fixture(scope="module")
def few(place: Path) -> dict[str, Any]:
    """The results of a run whose student sees 30 labelled texts."""
    return run(place, "few", "data.labelled=30")


def test_labelled_takes_that_many_originals_and_leaves_the_teacher_as_it_is(
    place: Path, results: dict[str, Any], few: dict[str, Any]
) -> None:
    first = bytes_of(place / "first" / "teacher")
    assert bytes_of(place / "few" / "teacher") == first, "fine-tuned on all of train"
    assert few["teacher"] == results["teacher"]
    assert (few["data"]["originals"], few["data"]["candidates"]) == (30, 30 * K)
    assert few["cost"]["training_rows"] == 30 * (1 + KEEP) * EPOCHS
    assert few["data"]["labelled_texts_of_the_task"] == ORIGINALS
    assert "labelled_texts_of_the_task" not in results["data"]

    rows = TransferSet.open(place / "few" / "transfer_set").table.to_pylist()
    whole = {row["id"]: row for row in TransferSet.open(place / "first" / "transfer_set").table.to_pylist()}
    assert all(row["text"] == whole[row["id"]]["text"] and row["label"] == whole[row["id"]]["label"] for row in rows)
    assert Counter(row["label"] for row in rows) == dict.fromkeys(LABELS, 10)
    card = (place / "few" / "transfer_set" / "README.md").read_text()
    assert "- labelled texts: 30\n" in card
    assert "- labelled texts of the task: 90\n" in card
    assert "- labelled texts: 30 of the task's 90\n" in (place / "few" / "student" / "README.md").read_text()


def test_another_number_of_labelled_texts_makes_another_transfer_set_and_no_other_teacher(
    place: Path, few: dict[str, Any]
) -> None:
    shutil.copytree(place / "few", place / "fewer", copy_function=shutil.copy2)
    before = ages(place / "fewer")
    run(place, "fewer", "data.labelled=12")
    after = ages(place / "fewer")
    changed = {name.split("/")[0] for name in before | after if before.get(name) != after.get(name)}
    assert changed - {"teacher_logits"} == {"transfer_set", "student"}
    assert len(TransferSet.open(place / "fewer" / "transfer_set")) == 12


def test_used_neighbours_are_those_that_training_comes_to_and_each_is_drawn_once(
    place: Path, results: dict[str, Any]
) -> None:
    sets = ("data.select={random: {keep: 1}}", "data.neighbours.sample=used", "data.labelled=30")
    shutil.copytree(place / "first", place / "used", copy_function=shutil.copy2)
    few = run(place, "used", *sets)
    assert few["data"]["candidates"] == 30 * EPOCHS < 30 * K
    assert few["cost"]["training_rows"] == 30 * (1 + 1) * EPOCHS
    picked = load_file(place / "used" / "student" / "trace.safetensors")["picked"]  # (epochs, candidates)
    assert picked.sum(dim=0).tolist() == [1] * (30 * EPOCHS), "every candidate is trained on, in one epoch"


def test_more_labelled_texts_than_there_are_is_an_error_before_anything_is_trained(place: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.labelled is 91, but task task has 90 labelled training texts"):
        run(place, "too-many", "data.labelled=91")
    assert not (place / "too-many").exists()


# ---- other kinds of teachers and tasks ----

ORDER = ("tool", "animal", "food")  # not the task's order: columns are told apart by name


@pytest.fixture(scope="module")
def numbers(place: Path, tiny_bert: Path) -> dict[str, np.ndarray]:
    """`given.yaml`, whose teacher is a Parquet file of probabilities; text → its row."""
    rng = np.random.default_rng(0)
    labelled = dict([*sentences(0), *sentences(10)[:18], *sentences(20)[:18]])
    known = {
        text: 0.1 * rng.dirichlet([1, 1, 1]) for text in [*labelled, *(place / "corpus.txt").read_text().split("\n")]
    }
    for text, row in known.items():
        row[ORDER.index(labelled[text]) if text in labelled else rng.integers(3)] += 0.9
    table = {"text": list(known), "probabilities": [row.astype(np.float32).tolist() for row in known.values()]}
    pq.write_table(pa.table(table), place / "given.parquet")
    tree = (place / "recipe.yaml").read_text().splitlines()
    tree[1] = f"teacher: {{logits: given.parquet, column: probabilities, labels: [{', '.join(ORDER)}]}}"
    tree[2] = f"student: {{model: {tiny_bert}}}"
    (place / "given.yaml").write_text("\n".join(tree).replace(f"epochs: {EPOCHS}", "epochs: 1") + "\n")
    return known


def test_a_teacher_may_be_probabilities_in_a_file(place: Path, numbers: dict[str, np.ndarray]) -> None:
    results = run(place, "given", recipe="given.yaml")
    assert results["teacher"] == {"validation": 1.0, "test": 1.0, "parameters": None}
    assert results["cost"]["teacher_rows"] == 0
    assert results["data"]["candidates"] == ORIGINALS * K
    transfer = TransferSet.open(place / "given" / "transfer_set")
    candidates = transfer.candidates()
    order = [ORDER.index(label) for label in LABELS]
    for texts, logits in ((transfer.column("text"), transfer.teacher()), (candidates.text, candidates.teacher)):
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        wanted = np.array([numbers[text][order] for text in texts])
        np.testing.assert_allclose(probabilities, wanted, atol=1e-5)


def test_candidates_without_numbers_stop_the_run_or_are_dropped(place: Path, numbers: dict[str, np.ndarray]) -> None:
    table = pq.read_table(place / "given.parquet")
    known = [text for text in numbers if " and 1" not in text]  # half of the corpus is left out
    pq.write_table(table.filter(pa.array([text in known for text in numbers])), place / "partial.parquet")
    partial = f"teacher.logits={place / 'partial.parquet'}"
    with pytest.raises(DataError, match=r"no teacher output for .* of 450 texts.*teacher\.missing: drop"):
        run(place, "partial", partial, recipe="given.yaml")

    results = run(place, "partial", partial, "teacher.missing=drop", recipe="given.yaml")
    found = TransferSet.open(place / "partial" / "transfer_set").candidates().text
    assert set(found) <= set(known)
    assert 0 < len(found) < ORIGINALS * K
    assert results["data"]["candidates"] == len(found)
    assert results["data"]["candidates_unique"] == len(set(found))


def test_a_training_split_without_labels_learns_from_the_teacher_alone(
    place: Path, numbers: dict[str, np.ndarray]
) -> None:
    shutil.copytree(place / "task", place / "unlabelled")
    rows_to(place / "unlabelled" / "train.csv", ("text", "label"), [(text, "") for text, _ in sentences(0)])
    sets = (f"task={place / 'unlabelled'}", "data={}", "training={kd: {weight: 1.0}, epochs: 1, max_length: 32}")
    results = run(place, "out-unlabelled", *sets, recipe="given.yaml")
    assert results["cost"]["training_rows"] == ORIGINALS
    assert results["data"]["candidates"] == 0
    assert results["data"]["kept_per_original"] == 0
    assert set(TransferSet.open(place / "out-unlabelled" / "transfer_set").column("label")) == {None}
    assert results["teacher"]["test"] == 1.0
    assert results["student"]["test"] is not None


def test_a_fine_tuned_teacher_needs_labels(place: Path) -> None:
    rows_to(place / "bare" / "train.csv", ("text",), [(text,) for text, _ in sentences(0)])
    with pytest.raises(DataError, match=r"no labels to fine-tune a teacher on; set teacher\.epochs: 0"):
        run(place, "out-bare", f"task={place / 'bare'}", "teacher.labels=[a, b]")


SHORT = ("training={kd: {}, ce: {}, epochs: 1, max_length: 32}", "data.neighbours.k=4")


def test_a_pair_task_runs_and_a_neighbour_replaces_one_side_only(place: Path) -> None:
    rows = [(text, f"is it a {label} ?", "yes" if n % 2 else "no") for n, (text, label) in enumerate(sentences(0)[:24])]
    for split, some in (("train", rows[:16]), ("validation", rows[16:20]), ("test", rows[20:])):
        rows_to(place / "pairs" / f"{split}.csv", ("text", "text_pair", "label"), some)
    results = run(place, "out-pairs", f"task={place / 'pairs'}", *SHORT)
    assert results["cost"]["training_rows"] == 16 * (1 + KEEP)
    for row in TransferSet.open(place / "out-pairs" / "transfer_set").table.to_pylist():
        same = [(c["text"] == row["text"], c["text_pair"] == row["text_pair"]) for c in row["candidates"]]
        assert sorted(same) == [(False, True)] * 2 + [(True, False)] * 2


def test_a_regression_task_runs_with_one_output(place: Path) -> None:
    rows = [(text, len(text) / 8) for text, _ in sentences(0)[::2]]
    for split, some in (("train", rows[:25]), ("validation", rows[25:35]), ("test", rows[35:])):
        rows_to(place / "numbers" / f"{split}.csv", ("text", "label"), some)
    losses = "training={kd: {}, ce: {}, logit_regression: {}, epochs: 1, max_length: 32}"
    results = run(place, "out-numbers", f"task={place / 'numbers'}", losses)
    assert results["metric"] == "pearson"
    transfer = TransferSet.open(place / "out-numbers" / "transfer_set")
    assert transfer.labels == ()
    assert transfer.column("label")[:2] == [rows[0][1], rows[1][1]]
    assert transfer.teacher().shape == (25, 1)
    config = json.loads((place / "out-numbers" / "student" / "config.json").read_text())
    assert config.get("problem_type") in (None, "regression")
    assert results["student"]["test"] is None or -1 <= results["student"]["test"] <= 1
