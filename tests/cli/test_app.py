"""The command line: what each command prints, what it writes, and the status it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import Augkd


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


@pytest.fixture
def index_recipe(tmp_path: Path, corpus_file: Path) -> Path:
    path = tmp_path / "lines.yaml"
    path.write_text(f"corpus: {{dataset: {corpus_file.name}}}\nencoder: {{max_length: 32}}\n")
    return path


# ---- looking, without work ----


def test_check_prints_the_plan_and_writes_nothing(augkd: Augkd, recipe_file: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = augkd("check", recipe_file, "--out", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    assert "task: 90 train, 18 validation, 18 test" in done.out
    assert "3 classes: animal, food, tool; metric accuracy" in done.out
    assert "90 originals, at most 360 candidates (to do)" in done.out
    assert "minimax keep 2" in done.out
    assert sorted(tmp_path.rglob("*")) == before


def test_check_shows_how_many_labelled_texts_the_student_sees(augkd: Augkd, recipe_file: Path) -> None:
    few = augkd("check", recipe_file, "--set", "data.labelled=30")
    assert "30 of 90 training texts as originals (data.labelled), at most 120 candidates" in few.out
    assert "3 epochs on 30 originals" in few.out
    assert "3 epochs, at most 2 steps, on 90 orig" in augkd("check", recipe_file, "--set", "training.max_steps=2").out
    assert "labelled)" not in augkd("check", recipe_file).out
    wrong = augkd("check", recipe_file, "--set", "data.labelled=91")
    assert (wrong.code, wrong.err.count("\n")) == (1, 1)
    assert "data.labelled is 91, but task task has 90 labelled training texts; give at most 90" in wrong.err


def test_check_counts_the_neighbours_that_are_drawn(augkd: Augkd, recipe_file: Path) -> None:
    drawn = ["data.neighbours.k=7", "data.neighbours.sample=2"]
    assert "at most 180 candidates" in augkd("check", recipe_file, "--set", drawn[0], "--set", drawn[1]).out
    used = ["--set", drawn[0], "--set", "data.neighbours.sample=used", "--set", "training.epochs=2"]
    few = augkd("check", recipe_file, *used, "--set", "data.select={minimax: {keep: 1, of: 2}}")
    assert "at most 360 candidates" in few.out
    assert "at most 630 candidates" in augkd("check", recipe_file, *used).out  # minimax looks at all
    wrong = augkd("check", recipe_file, "--set", drawn[0], "--set", "data.neighbours.sample=9")
    assert wrong.err.count("\n") == 1
    assert "sample is 9 of k = 7 neighbours; give at most k" in wrong.err


def test_set_changes_one_key_of_the_recipe(augkd: Augkd, recipe_file: Path) -> None:
    done = augkd("check", recipe_file, "--set", "data.neighbours.k=7", "--set", "seed=3")
    assert "at most 630 candidates" in done.out
    assert "seed 3" in done.out


@pytest.mark.parametrize(
    "command",
    [
        ("check",),
        ("run", "recipe.yaml"),
        ("augment", "recipe.yaml"),
        ("transfer", "show"),
        ("transfer", "jsonl", "some-folder"),
        ("distill", "--out", "x"),
        ("distill", "recipe.yaml", "--out", "x", "--student", "a-model"),
        ("index", "search"),
        ("index", "search", "folder", "text", "-k", "0"),
        ("check", "recipe.yaml", "--no-such-option"),
        ("no-such-command",),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_status_2(augkd: Augkd, command: tuple[str, ...]) -> None:
    done = augkd(*command)
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err


def test_a_misspelt_shipped_recipe_is_an_error_with_a_suggestion(augkd: Augkd) -> None:
    done = augkd("check", "minimax-knm")
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert "did you mean 'minimax-knn'?" in done.err


def test_help_and_check_import_no_model_library(recipe_file: Path) -> None:
    code = """
import sys
from augkd.cli.app import main
sys.argv = ["augkd", *sys.argv[1:]]
try:
    main()
except SystemExit as exc:
    heavy = {"torch", "transformers", "faiss", "datasets", "sentence_transformers"} & set(sys.modules)
    assert not heavy, heavy
    sys.exit(exc.code)
"""
    for command in (["--help"], ["check", str(recipe_file)]):
        done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert "augment" in done.stdout or "90 train" in done.stdout


# ---- an index ----


def test_an_index_is_built_described_and_searched(augkd: Augkd, index_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    built = augkd("index", "build", index_recipe, "--out", out, "--json")
    assert built.code == 0
    assert built.json["count"] == 200
    assert built.json["dim"] == 384
    assert "index: 200" in built.err, "progress goes to stderr"

    info = augkd("index", "info", out, "--json")
    assert info.json == built.json
    assert "count: 200" in augkd("index", "info", out).out.splitlines()

    found = augkd("index", "search", out, "the dog is here 40 and 0", "-k", "3", "--json").json
    assert found[0]["text"] == "the dog is here 40 and 0"
    assert found[0]["score"] == pytest.approx(1, abs=1e-3)
    assert len(found) == 3
    assert found[0]["score"] >= found[1]["score"] >= found[2]["score"]
    lines = augkd("index", "search", out, "the dog is here 40 and 0", "-k", "3").out.splitlines()
    assert lines == [f"{row['score']:.3f}  {row['text']}" for row in found]


def test_a_search_deeper_than_the_index_returns_all_of_it(augkd: Augkd, tmp_path: Path) -> None:
    (tmp_path / "three.txt").write_text("a cat\na dog\na hammer\n")
    (tmp_path / "three.yaml").write_text("corpus: {dataset: three.txt}\nencoder: {max_length: 16}\n")
    assert augkd("index", "build", tmp_path / "three.yaml", "--out", tmp_path / "three").code == 0
    assert len(augkd("index", "search", tmp_path / "three", "a bird", "-k", "50", "--json").json) == 3


def test_describing_a_folder_that_is_no_index_ends_in_one_line(augkd: Augkd, tmp_path: Path) -> None:
    done = augkd("index", "info", tmp_path)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert str(tmp_path) in done.err


# ---- a transfer set and a run ----


def test_a_run_is_augment_then_distill_and_their_results_can_be_looked_at(
    augkd: Augkd, recipe_file: Path, tmp_path: Path
) -> None:
    import torch

    torch.set_num_threads(1)  # models of width 32: threads that wait for each other cost more
    out, quick = tmp_path / "out", ("--set", "training.epochs=1", "--set", "teacher.epochs=1")
    facts = augkd("augment", recipe_file, "--out", out, *quick, "--json")
    assert facts.code == 0
    assert (facts.json["originals"], facts.json["candidates"]) == (90, 360)
    assert not (out / "student").exists()

    rows = augkd("transfer", "show", out / "transfer_set", "-n", "2", "--json").json
    assert [row["text"] for row in rows] == ["the cat is here 0", "the dog is here 0"]
    shown = augkd("transfer", "show", out / "transfer_set", "-n", "2").out.splitlines()
    assert len(shown) == 2 * (1 + 4)
    assert "the cat is here 0  (label animal; teacher " in shown[0]

    jsonl = tmp_path / "augmented.jsonl"
    assert augkd("transfer", "jsonl", out / "transfer_set", "--out", jsonl).out == f"90 rows: {jsonl}\n"
    first = json.loads(jsonl.read_text().splitlines()[0])
    assert first["text_a"] == rows[0]["text"]
    assert first["augmented_samples"] == [candidate["text"] for candidate in rows[0]["candidates"]]

    made = (out / "transfer_set" / "manifest.json").stat().st_mtime_ns
    done = augkd("run", recipe_file, "--out", out, *quick, "--json")
    assert done.code == 0
    assert done.json == json.loads((out / "results.json").read_text())
    assert done.json["cost"]["training_rows"] == 90 * 3
    assert (out / "transfer_set" / "manifest.json").stat().st_mtime_ns == made

    table = augkd("distill", recipe_file, "--out", out, *quick).out.splitlines()
    assert table[0].split() == ["validation", "test", "parameters"]
    figures = done.json["student"]
    assert table[2].split() == [
        "student",
        f"{figures['validation']:.4f}",
        f"{figures['test']:.4f}",
        f"{figures['parameters']:,}",
    ]

    plan = augkd("check", recipe_file, "--out", out, *quick).out
    assert plan.count("is finished; used again if its inputs are unchanged") == 4


def test_a_transfer_set_is_distilled_by_itself_and_gets_its_card_again(
    augkd: Augkd, recipe_file: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", tmp_path / "out" / "transfer_set"
    augkd("augment", recipe_file, "--out", out, "--set", "teacher.epochs=1")
    (folder / "README.md").unlink()
    assert augkd("transfer", "card", folder, "--name", "mine").out == f"card: {folder / 'README.md'}\n"
    assert "pretty_name: mine" in (folder / "README.md").read_text()

    command = ("distill", "--transfer-set", folder, "--student", tiny_bert, "--out", tmp_path / "student")
    done = augkd(*command, "--set", "training={kd: {}, epochs: 1, max_length: 32}", "--json")
    assert done.code == 0, done.err
    assert done.json["recipe"] == "transfer-set"
    assert (tmp_path / "student/student/model.safetensors").is_file()


def test_a_second_augkd_in_the_same_folder_is_refused(augkd: Augkd, recipe_file: Path, tmp_path: Path) -> None:
    from augkd.workspace.locks import locked

    with locked(tmp_path / "out"):
        done = augkd("run", recipe_file, "--out", tmp_path / "out")
    assert done.code == 1
    assert "another augkd is working in" in done.err
