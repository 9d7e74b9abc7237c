"""Mistakes people make: each ends in one line that says what, where and how to mend it, and in exit status 1."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augkd.cli.app import main


@dataclass(frozen=True)
class Place:
    """Where a mistake is prepared."""

    tmp: Path
    task: Path
    corpus: Path
    recipe: Path


Mistake = Callable[[Place], list[str]]  # prepares the mistake; the command line that meets it


def rows_to(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def check(place: Place, *sets: str) -> list[str]:
    return ["check", str(place.recipe), *(part for value in sets for part in ("--set", value))]


def missing_task_file(place: Place) -> list[str]:
    return check(place, f"task.dataset={place.tmp / 'nowhere.csv'}")


def empty_corpus(place: Place) -> list[str]:
    place.corpus.write_text("\n \n\n")
    recipe = place.tmp / "index.yaml"
    recipe.write_text(f"corpus: {{dataset: {place.corpus}}}\nencoder: {{max_length: 32}}\n")
    return ["index", "build", str(recipe), "--out", str(place.tmp / "index")]


def unknown_label_column(place: Place) -> list[str]:
    return check(place, "task.label=lable")


def one_class(place: Place) -> list[str]:
    for split in ("train", "validation", "test"):
        rows_to(place.task / f"{split}.csv", ("text", "label"), [(f"{split} text {n}", "animal") for n in range(6)])
    return check(place)


def label_only_in_test(place: Place) -> list[str]:
    rows_to(place.task / "test.csv", ("text", "label"), [("a cat", "animal"), ("a rock", "mineral")])
    return check(place)


def nan_label(place: Place) -> list[str]:
    for split in ("train", "validation", "test"):
        rows_to(place.task / f"{split}.csv", ("text", "label"), [(f"{split} {n}", n / 2) for n in range(6)])
    rows_to(place.task / "train.csv", ("text", "label"), [("one", 0.5), ("two", "nan"), ("three", 1.5)])
    return check(place)


def half_a_pair(place: Place) -> list[str]:
    for split in ("train", "validation", "test"):
        rows = [(f"{split} {n}", "" if n % 2 else f"other {n}", "yes" if n % 3 else "no") for n in range(8)]
        rows_to(place.task / f"{split}.csv", ("text", "text_pair", "label"), rows)
    return check(place, "task.text_pair=text_pair")


def recipe_typo(place: Place) -> list[str]:
    place.recipe.write_text(place.recipe.read_text().replace("temperature: 2.0", "temprature: 2.0"))
    return check(place)


def corrupt_index(place: Place) -> list[str]:
    import numpy as np

    from augkd.data.corpus import CorpusSource
    from augkd.retrieval.engines.local import build_dense

    class Encoder:
        name, dim, fingerprint = "random", 8, "random-8"

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            vectors = np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    folder = place.tmp / "index"
    build_dense(folder, CorpusSource(str(place.corpus)), Encoder())
    stored = bytearray((folder / "vectors.faiss").read_bytes())
    stored[len(stored) // 2] ^= 0xFF
    (folder / "vectors.faiss").write_bytes(stored)
    recipe = ["--set", f"data.neighbours.index={folder}", "--set", "teacher.epochs=1"]
    return ["augment", str(place.recipe), "--out", str(place.tmp / "out"), *recipe]


def foreign_transfer_set(place: Place) -> list[str]:
    folder = place.tmp / "foreign"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.table({"sentence": ["a"], "label": [1]}), folder / "data" / "train.parquet")
    return ["transfer", "show", str(folder)]


# mistake → what its one line must contain: what it is, where it is, and the word of the remedy
SAID: dict[Mistake, tuple[str, ...]] = {
    missing_task_file: ("nowhere.csv", "does not exist"),
    empty_corpus: ("corpus.txt", "no usable text", "3 empty", "change these options"),
    unknown_label_column: ("'lable'", "train.csv", "label"),
    one_class: ("train.csv", "'animal'", "at least one other class"),
    label_only_in_test: ("test.csv row 2", "'mineral'", "never occurs in train", "correct it"),
    nan_label: ("train.csv row 2", "nan", "correct it"),
    half_a_pair: ("train.csv", "'text_pair'", "4 of 8 rows", "fill or remove"),
    recipe_typo: ("recipe.yaml", "'temprature'", "did you mean 'temperature'?"),
    corrupt_index: ("vectors.faiss", "damaged", "checksum", "remove "),
    foreign_transfer_set: ("foreign", "transfer set", "augkd augment"),
}


@pytest.mark.parametrize("mistake", SAID, ids=lambda mistake: mistake.__name__)
def test_a_mistake_ends_in_one_line_that_says_what_where_and_what_to_do(
    mistake: Mistake,
    task_folder: Path,
    corpus_file: Path,
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = mistake(Place(tmp_path, task_folder, corpus_file, recipe_file))
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["augkd", *command])
    with pytest.raises(SystemExit) as exit_:
        main()
    shown = capsys.readouterr()
    assert exit_.value.code == 1, shown
    errors = [line for line in shown.err.splitlines() if not line.startswith(("teacher:", "note:"))]
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    assert [part for part in SAID[mistake] if part not in errors[0]] == [], errors[0]
    assert "Traceback" not in shown.err + shown.out
    assert len(errors[0]) < 500, "a line is for reading"


def test_the_untouched_inputs_pass(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["augkd", "check", str(recipe_file)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0
    assert capsys.readouterr().err == ""


def test_debug_shows_the_traceback_of_a_mistake(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from augkd.errors import DataError

    command = ["augkd", "--debug", "check", str(recipe_file), "--set", "task.label=lable"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(DataError, match="lable"):
        main()
