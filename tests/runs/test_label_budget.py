"""A label budget: exactly so many texts are labelled, in rounds that continue where they stopped, by any teacher."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.chat_server import Fault, Say, chat_server
from support.command_line import Augkd
from support.tiny import LABELS, WORDS, sentences

from augkd.data.cleaning import normalised
from augkd.data.transfer_set import TransferSet
from augkd.errors import DataError, RecipeError, WorkspaceError
from augkd.recipe import load_recipe
from augkd.runs.comparison import compare_recipes
from augkd.runs.run import Run
from augkd.workspace.verify import verify

LABELLED = 24
SIZES = [6, 14, 20]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A task of 24 labelled and 66 unlabelled training texts, a corpus, and a recipe with a label budget."""
    folder = tmp_path_factory.mktemp("budget")
    (folder / "task").mkdir()
    train = [(text, label if number % 15 < 4 else None) for number, (text, label) in enumerate(sentences(0))]
    assert sum(label is not None for _, label in train) == LABELLED
    splits = {"train": train, "validation": sentences(10)[:18], "test": sentences(20)[:18]}
    for split, rows in splits.items():
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / "task" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    corpus = [f"{text} and 7" for text, _ in sentences(40)] + [sentences(20)[0][0].upper()]
    (folder / "corpus.txt").write_text("\n".join(corpus) + "\n")
    tuned = f"{{model: {tiny_bert}, epochs: 4, learning_rate: 1.0e-3}}"
    (folder / "recipe.yaml").write_text(recipe(tuned, tiny_bert))
    teacher = Run(load_recipe(str(folder / "recipe.yaml")), folder / "teacher").teacher.folder
    (folder / "recipe.yaml").write_text(recipe(f"{{model: {teacher}}}", tiny_bert))
    return folder


def recipe(teacher: str, student: Path, by: str = "entropy", more: str = "") -> str:
    return f"""\
task: {{dataset: task}}
teacher: {teacher}
student: {{model: {student}}}
data:
  label_budget: {{texts: {SIZES[-1]}, rounds: {SIZES}, by: {by}, near: 1.0{more}}}
training: {{kd: {{weight: 0.5}}, ce: {{weight: 0.5}}, epochs: 1, max_length: 32, learning_rate: 1.0e-3}}
"""


def run(place: Path, out: Path, *sets: str, **options: Any) -> Run:
    return Run(load_recipe(str(place / "recipe.yaml"), sets), out, **options)


def neighbours(place: Path) -> str:
    index = f"{{corpus: {{dataset: {place / 'corpus.txt'}}}, encoder: {{max_length: 32}}}}"
    return f"data.neighbours={{index: {index}, k: 3}}"


def rounds_of(folder: Path) -> list[list[str]]:
    files = sorted(folder.glob("round-*.json"))
    return [[text for text, _ in json.loads(file.read_text())["texts"]] for file in files]


def training_texts(place: Path) -> dict[str, str | None]:
    rows = [json.loads(line) for line in (place / "task" / "train.jsonl").read_text().splitlines()]
    return {row["text"]: row["label"] for row in rows}


SELECTORS = (
    "random",
    "entropy",
    "margin",
    "predicted_divergence",
    "confidence_uncertainty",
    "{accept_reject: {power: 2.0}}",
)


@pytest.mark.parametrize("by", SELECTORS)
def test_exactly_the_label_budget_is_labelled_in_rounds_and_no_text_twice(place: Path, tmp_path: Path, by: str) -> None:
    job = run(place, tmp_path, f"data.label_budget.by={by}")
    results = job.results()
    rounds = rounds_of(tmp_path / "labels")
    assert [len(texts) for texts in rounds] == [6, 8, 6]
    chosen = [text for texts in rounds for text in texts]
    assert len(set(chosen)) == 20
    task = training_texts(place)
    assert all(task[text] is None for text in chosen)
    transfer = job.transfer_set()
    labels = dict(zip(transfer.column("text"), transfer.column("label"), strict=True))
    assert labels == {text: label for text, label in task.items() if label is not None or text in chosen}
    assert results["data"]["labelled_by_the_teacher"] == LABELLED + 20
    students = results["label_rounds"]["students"]
    assert [student["labels"] for student in students] == ([] if by == "random" else [24, 30, 38])
    evaluation = 0 if by == "random" else 36  # a student between rounds is compared with the teacher on them
    assert results["cost"]["teacher_rows"] == LABELLED + 20 + evaluation


def test_the_selectors_choose_differently_and_the_seed_changes_a_random_choice(place: Path, tmp_path: Path) -> None:
    chosen = {}
    for name, sets in {
        "random": ["data.label_budget.by=random"],
        "seed": ["data.label_budget.by=random", "seed=1"],
        "entropy": [],
    }.items():
        run(place, tmp_path / name, *sets).transfer_set()
        chosen[name] = rounds_of(tmp_path / name / "labels")
    assert chosen["random"] != chosen["seed"]
    assert chosen["random"] != chosen["entropy"]


def test_a_stopped_run_goes_on_with_the_round_it_was_in_and_ends_with_the_same_bytes(
    place: Path, tmp_path: Path
) -> None:
    class Stop(BaseException):
        """As a kill."""

    stages: list[str] = []

    def progress(stage: str, done: int, total: int | None) -> None:
        stages.append(stage)
        if stage.startswith("round 3: student") and stop:
            raise Stop

    stop = True
    with pytest.raises(Stop):
        run(place, tmp_path / "stopped", progress=progress).results()
    before = rounds_of(tmp_path / "stopped" / "labels")
    assert [len(texts) for texts in before] == [6, 8]
    stop = False
    labels = tmp_path / "stopped" / "labels"
    vectors = sorted(labels.glob(".cache/pool_vectors-*/vectors.npy"))
    assert len(vectors) == 2, "of the texts with a label, and of the others"
    for file in (labels / "round-1.json", *vectors):
        whole = file.read_bytes()
        file.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
        with pytest.raises(WorkspaceError, match=f"{file.name} is damaged"):
            run(place, tmp_path / "stopped").results()
        assert any(f"{file.name} is damaged" in line for line in verify(tmp_path / "stopped").damaged)
        file.write_bytes(whole)
    stages.clear()
    run(place, tmp_path / "stopped", progress=progress).results()
    assert not any(stage.startswith(("round 1:", "round 2:", "vectors")) for stage in stages), "done before"
    run(place, tmp_path / "whole").results()
    assert rounds_of(tmp_path / "stopped" / "labels") == rounds_of(tmp_path / "whole" / "labels")
    assert rounds_of(tmp_path / "stopped" / "labels")[:2] == before
    for name in ("student/model.safetensors", "transfer_set/data/train-00000.parquet"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_rounds_of_parallel_runs_are_their_own_work(place: Path, tmp_path: Path) -> None:
    corpus = f"data.neighbours={{index: {{corpus: {place / 'corpus.txt'}, encoder: {{kind: lexical}}}}}}"
    run(place, tmp_path, corpus).prepare()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["index"]


def test_a_comparison_encodes_the_pool_once_for_all_selectors(place: Path, tmp_path: Path) -> None:
    vectors = "vectors of the pool"
    encoded: list[int] = []

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage.endswith(vectors) and done == total:
            encoded.append(done)

    recipes = {
        name: load_recipe(str(place / "recipe.yaml"), [f"data.label_budget.by={name}"])
        for name in ("random", "entropy")
    }
    compare_recipes(recipes, 1, tmp_path, progress, baseline="random")
    assert sorted(encoded) == [LABELLED, 66]


def test_candidates_of_labelled_texts_share_the_label_budget_and_stay_with_their_owner(
    place: Path, tmp_path: Path
) -> None:
    job = run(place, tmp_path, neighbours(place))
    results = job.results()
    chosen = {text for texts in rounds_of(tmp_path / "labels") for text in texts}
    transfer, task = job.transfer_set(), training_texts(place)
    candidates = transfer.candidates()
    assert len(chosen) == 20
    assert set(candidates.text) <= chosen
    rows = set(transfer.column("text"))
    assert chosen <= rows | set(candidates.text), "what was labelled is used"
    assert {text for text, label in task.items() if label is not None} <= rows
    assert rows - set(task) <= chosen
    assert results["data"]["labelled_by_the_teacher"] == 44


def test_the_whole_index_can_be_chosen_from_without_its_evaluation_texts(place: Path, tmp_path: Path) -> None:
    job = run(place, tmp_path, neighbours(place), "data.label_budget.of=index")
    job.results()
    transfer = job.transfer_set()
    assert len(transfer.candidates().text) == 0
    ids = dict(zip(transfer.column("text"), transfer.column("id"), strict=True))
    from_index = [text for text, id_ in ids.items() if id_.startswith("index-")]
    assert from_index
    assert normalised(sentences(20)[0][0]) not in {normalised(text) for text in from_index}
    assert len(transfer) == 44


def test_a_label_budget_above_the_pool_labels_all_of_it(place: Path, tmp_path: Path) -> None:
    job = run(place, tmp_path, "data.label_budget.texts=80", "data.label_budget.rounds=[70, 80]")
    assert len(job.transfer_set()) == 90
    assert [len(texts) for texts in rounds_of(tmp_path / "labels")] == [66, 0]


def test_near_duplicates_are_not_chosen_within_a_round(place: Path, tmp_path: Path) -> None:
    """The corpus repeats the words of the task; at a cosine of 0.6 far fewer texts are left to choose."""
    run = Run(
        load_recipe(str(place / "recipe.yaml"), ["data.label_budget.near=0.6", "data.label_budget.by=random"]), tmp_path
    )
    run.transfer_set()
    from augkd.retrieval.encoders.make import make_encoder

    encoder = make_encoder({}, tmp_path)
    for texts in rounds_of(tmp_path / "labels"):
        vectors = encoder.encode(texts)
        cosine = vectors @ vectors.T - np.eye(len(texts))
        assert cosine.max() < 0.6


# ---- who labels: an LLM, people ----


def oracle(text: str) -> int:
    """The class of a text, by its last word of a class: "saw" is a verb too."""
    of_word = {word: place for place, label in enumerate(LABELS) for word in WORDS[label]}
    return [of_word[word] for word in text.split() if word in of_word][-1]


def test_an_llm_is_asked_about_the_label_budget_once_and_a_second_run_pays_nothing(
    place: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    def behave(request: dict[str, Any], number: int) -> Say | Fault:
        text = request["messages"][0]["content"].split("Text: ")[1].split("\n")[0]
        right = oracle(text)
        return Say(
            "ABC"[right], {letter: math.log(0.8 if number == right else 0.1) for number, letter in enumerate("ABC")}
        )

    with chat_server(behave) as server:
        asked = f"{{endpoint: '{server.url}', model: llm, answers: {tmp_path / 'answers'}}}"
        path = place / "llm.yaml"
        path.write_text(recipe(asked, tiny_bert, by="predicted_divergence"))
        results = Run(load_recipe(str(path)), tmp_path / "run").results()
        assert len(server.requests) == LABELLED + 20
        assert len(set(server.prompts)) == LABELLED + 20
        again = Run(load_recipe(str(path)), tmp_path / "again").results()
        assert len(server.requests) == LABELLED + 20
    assert results["student"] == {**again["student"]}
    assert results["cost"]["teacher_rows"] == LABELLED + 20


def test_people_label_round_after_round_and_are_asked_about_no_text_twice(
    place: Path, tiny_bert: Path, tmp_path: Path, augkd: Augkd
) -> None:
    path = place / "people.yaml"
    path.write_text(recipe(f"{{answers: {tmp_path / 'answers'}}}", tiny_bert, by="margin"))
    asked: list[str] = []
    for size in (6, 8, 6):
        done = augkd("label", "next", path, "--out", tmp_path / "texts.jsonl")
        assert done.code == 0, done.err
        rows = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
        assert len(rows) == size
        assert f"{size} texts to label" in done.out
        asked += [row["text"] for row in rows]
        first, rest = rows[:2], rows[2:]
        answers = [{"id": row["id"], "label": LABELS[oracle(row["text"])]} for row in first]
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, answers)) + "\n")
        partial = augkd("label", "import", path, tmp_path / "a.jsonl", "--json")
        assert partial.code == 0, partial.err
        assert [row["id"] for row in partial.json["missing"]] == [row["id"] for row in rest]
        stopped = augkd("run", path, "--out", tmp_path / "run")
        assert stopped.code == 1
        assert f"{size - 2} texts have no answer" in stopped.err
        assert "augkd label next" in stopped.err
        again = augkd("label", "next", path, "--out", tmp_path / "texts.jsonl", "--json")
        assert again.json["texts"] == size - 2, "only those without an answer"
        answers = [{"id": row["id"], "probabilities": _probabilities(row["text"])} for row in rest]
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, answers)) + "\n")
        assert augkd("label", "import", path, tmp_path / "a.jsonl").code == 0
    assert len(set(asked)) == len(asked) == 20
    nothing = augkd("label", "next", path, "--out", tmp_path / "texts.jsonl")
    assert nothing.out.strip() == "no text waits for a label"
    done = augkd("run", path, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    transfer = TransferSet.open(tmp_path / "run" / "transfer_set")
    assert set(asked) < set(transfer.column("text"))
    assert len(transfer) == LABELLED + 20
    teacher = dict(zip(transfer.column("text"), transfer.teacher(), strict=True))
    assert all(teacher[text].argmax() == oracle(text) for text in asked)
    assert "people" in (tmp_path / "run" / "student" / "README.md").read_text()


def _probabilities(text: str) -> list[float]:
    return [0.8 if place == oracle(text) else 0.1 for place in range(3)]


def test_with_missing_drop_a_partly_answered_round_goes_on_and_an_unanswered_one_does_not(
    place: Path, tiny_bert: Path, tmp_path: Path, augkd: Augkd
) -> None:
    path = place / "partly.yaml"
    path.write_text(recipe(f"{{answers: {tmp_path / 'answers'}, missing: drop}}", tiny_bert, by="random"))
    stopped = augkd("run", path, "--out", tmp_path / "run")
    assert stopped.code == 1
    assert "has no output for any of the 6 texts of round 1" in stopped.err
    augkd("label", "next", path, "--out", tmp_path / "texts.jsonl")
    row = json.loads((tmp_path / "texts.jsonl").read_text().splitlines()[0])
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": row["id"], "label": "food"}) + "\n")
    augkd("label", "import", path, tmp_path / "a.jsonl")
    stopped = augkd("run", path, "--out", tmp_path / "run")
    assert "any of the 8 texts of round 2" in stopped.err


# ---- what a plan says, and what does not fit ----


def test_the_plan_counts_texts_requests_tokens_and_money(place: Path, tiny_bert: Path, augkd: Augkd) -> None:
    path = place / "plan.yaml"
    endpoint = "{endpoint: {url: 'http://localhost:1/v1', permutations: 3}, model: llm}"
    path.write_text(recipe(endpoint, tiny_bert))
    done = augkd("label", "plan", path, "--texts", "10,50", "--price", "2", "--price-written", "8", "--json")
    assert done.code == 0, done.err
    plan = done.json
    assert (plan["labelled"], plan["pool"], plan["orders"]) == (LABELLED, 66, 3)
    first = plan["costs"][0]
    assert (first["texts"], first["requests"]) == (34, 102)
    assert first["tokens_read"] == pytest.approx(102 * plan["read"], abs=1)
    assert first["money"] == pytest.approx((first["tokens_read"] * 2 + first["tokens_written"] * 8) / 1e6)
    lines = augkd("label", "plan", path, "--price", "2").out.splitlines()
    assert lines[-1].split()[:2] == ["all", "90"]
    assert lines[-2].split()[0] == "20", "the recipe's own"


def test_check_says_what_the_label_budget_is(place: Path, augkd: Augkd) -> None:
    out = augkd("check", place / "recipe.yaml").out
    assert "label budget: 20 of at most 66 unlabelled texts, after rounds 6, 14, 20, by entropy" in out


def test_a_label_budget_needs_unlabelled_texts_and_classes_for_all_but_random(place: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "label": number / 10} for number, (text, _) in enumerate(sentences(0))]
    (tmp_path / "numbers.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    number = [f"task={{dataset: {tmp_path / 'numbers.jsonl'}}}", "teacher.epochs=1", "training={kd: {}}"]
    with pytest.raises(RecipeError, match="label selector 'entropy' needs one class per text"):
        run(place, tmp_path / "a", *number).transfer_set()
    with pytest.raises(DataError, match="has no unlabelled text to choose from"):
        Run(
            load_recipe(str(place / "recipe.yaml"), [*number, "data.label_budget.by=random"]), tmp_path / "b"
        ).transfer_set()


def test_labels_are_imported_only_for_a_teacher_that_is_people(place: Path, tmp_path: Path, augkd: Augkd) -> None:
    done = augkd("label", "next", place / "recipe.yaml", "--out", tmp_path / "x.jsonl")
    assert done.code == 1
    assert "set teacher: {answers: FOLDER}" in done.err
