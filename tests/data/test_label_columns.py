"""Several labels per text: every way to write them gives the same task, and what cannot be read says so."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.several import EMOTIONS, emotional

from augkd.data import tables
from augkd.data.task import Task, load_task, with_labelled
from augkd.errors import DataError, RecipeError

ROWS = emotional(60)


def as_jsonl(path: Path) -> dict[str, Any]:
    (path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return {}


def as_parquet(path: Path) -> dict[str, Any]:
    pq.write_table(pa.Table.from_pylist(ROWS), path / "train.parquet")
    return {}


def as_indices(path: Path) -> dict[str, Any]:
    rows = [row | {"label": [EMOTIONS.index(name) for name in row["label"]]} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), path / "train.parquet")
    return {"labels": EMOTIONS}


def as_strings(path: Path) -> dict[str, Any]:
    write_csv(path, ["text", "label"], [[row["text"], " | ".join(row["label"])] for row in ROWS])
    return {"separator": "|", "empty_label": "none"}


def as_columns(path: Path) -> dict[str, Any]:
    rows = [[row["text"], *(int(name in row["label"]) for name in EMOTIONS)] for row in ROWS]
    write_csv(path, ["text", *EMOTIONS], rows)
    return {"label": EMOTIONS}


def as_label_studio_csv(path: Path) -> dict[str, Any]:
    """A cell of one label is its name, one of several a JSON object."""
    cells = [json.dumps({"choices": row["label"]}) if len(row["label"]) > 1 else "".join(row["label"]) for row in ROWS]
    write_csv(path, ["text", "label"], [[row["text"], cell] for row, cell in zip(ROWS, cells, strict=True)])
    return {"empty_label": "none"}


def as_label_studio_json(path: Path) -> dict[str, Any]:
    def task(row: dict[str, Any]) -> dict[str, Any]:
        result = {"from_name": "label", "type": "choices", "value": {"choices": row["label"]}}
        return {"data": {"text": row["text"]}, "annotations": [{"result": [result] if row["label"] else []}]}

    (path / "train.json").write_text(json.dumps([task(row) for row in ROWS]))
    return {"empty_label": "none"}


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with (path / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


WAYS = (as_jsonl, as_parquet, as_indices, as_strings, as_columns, as_label_studio_csv, as_label_studio_json)


@pytest.mark.parametrize("write", WAYS)
def test_every_way_to_write_several_labels_gives_the_same_task(
    write: Callable[[Path], Mapping[str, Any]], tmp_path: Path
) -> None:
    task = load_task(dataset=str(tmp_path), **write(tmp_path))
    assert (task.labels, task.multi_label, task.metric) == (EMOTIONS, True, "micro_f1")
    found = {e.text: task.target.decode(e.label) for e in (*task.train, *task.validation, *task.test)}
    assert found == {row["text"]: sorted(row["label"]) for row in ROWS}
    assert any(names == [] for names in found.values()), "a text with none of the labels is labelled"


def test_the_names_of_a_sequence_of_class_labels_come_from_the_hub_s_features(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.Sequence(datasets.ClassLabel(names=list(EMOTIONS)))}
    )
    columns = {
        "text": [row["text"] for row in ROWS],
        "labels": [[EMOTIONS.index(name) for name in row["label"]] for row in ROWS],
    }
    hub = datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns, features=features)})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)
    assert tables.from_hub("owner/emotions", None) is hub
    task = load_task(dataset="owner/emotions", label="labels")
    assert (task.labels, task.multi_label) == (EMOTIONS, True)
    assert {e.text: task.target.decode(e.label) for e in task.train}[task.train[0].text] == sorted(
        next(row["label"] for row in ROWS if row["text"] == task.train[0].text)
    )


def test_splits_and_samples_keep_every_label_in_proportion(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": ["common"]} for number in range(80)]
    rows += [{"text": f"rare {number}", "label": ["common", "rare"]} for number in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task(dataset=str(tmp_path))

    def rare(examples: Any) -> int:
        return sum(task.labels.index("rare") in example.label for example in examples)

    assert [rare(examples) for examples in (task.train, task.validation, task.test)] == [16, 2, 2]
    assert rare(with_labelled(task, 20).train) == 4


def load(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> Task:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(dataset=str(tmp_path), **options)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([["a"], ["a"]], {}, r"the lists of labels name 1 label \(a\); a task of several labels needs at least 2"),
        ([["a", None], ["b"]], {}, r"row 1: label \['a', None\] has an empty entry; remove it"),
        ([["a"], "b|a"], {}, r"row 2: label 'b\|a' is not a list, as other rows have; write \['b\|a'\]"),
        ([["a"], ["b"]], {"regression": True}, r"row 1: label \['a'\] is no number; drop regression"),
        ([["a"], ["c"]], {"labels": ["a", "b"]}, r"row 2: label 'c' is neither one of the 2 names \(a, b\)"),
        ([["a"], ["b"]], {"separator": "|"}, r"row 1: label \['a'\] needs no separator; drop task.separator"),
    ],
)
def test_lists_that_cannot_be_labels_are_refused(
    tmp_path: Path, labels: list[Any], options: dict[str, Any], message: str
) -> None:
    rows = [{"text": f"text {number}", "label": label} for number, label in enumerate(labels * 10)]
    with pytest.raises(DataError, match=message):
        load(tmp_path, rows, **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 2, "b": 0}, r"row 1: column 'a' is 2, not 0 or 1; label: \[\.\.\.\] names columns of 0 and 1"),
        ({"a": None, "b": 0}, r"row 1: column 'a' is empty where others of the label's columns are not; fill it"),
    ],
)
def test_columns_that_hold_more_than_0_and_1_are_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, [{"text": "one", **row}, {"text": "two", "a": 1, "b": 0}], label=["a", "b"])


def test_an_empty_evaluation_label_is_missing_until_it_is_said_to_be_none(tmp_path: Path) -> None:
    write_csv(tmp_path, ["text", "label"], [[f"text {number}", ("a", "b", "a|b")[number % 3]] for number in range(30)])
    (tmp_path / "test.csv").write_text("text,label\nfirst,\nsecond,b\n")
    with pytest.raises(DataError, match=r"1 of 2 test rows have no label .* or set empty_label: none if an empty"):
        load_task(dataset=str(tmp_path), separator="|")
    task = load_task(dataset=str(tmp_path), separator="|", empty_label="none")
    assert [example.label for example in task.test] == [(), (1,)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"empty_label": "nothing"}, r"task empty_label is 'nothing'; known: missing, none"),
        ({"separator": " "}, r"task separator is ' '; give the character between labels"),
        ({"label": ["a"]}, r"task label \['a'\] must name two or more different columns"),
        ({"label": ["a", "b"], "separator": "|"}, r"drop labels, separator and regression"),
    ],
)
def test_options_of_several_labels_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_task(dataset="augkd:docstrings", **options)


def test_a_name_among_lists_is_a_list_of_one_and_noted(tmp_path: Path) -> None:
    labels = [["food, drink", "price"], "price", "food, drink"]
    rows = [{"text": f"text {number}", "label": label} for number, label in enumerate(labels * 10)]
    task = load(tmp_path, rows)
    assert (task.labels, task.multi_label) == (("food, drink", "price"), True)
    assert {example.label for example in task.train} == {(0, 1), (1,), (0,)}
    assert "labels: 20 of 30 rows have a name where others have a list; read as a list of one" in task.notes


@pytest.mark.parametrize("cell", ['{"choices": ["a"', '{"choices": "a"}', '{"choices": ["a", "b"], "more": 1}'])
def test_a_cell_that_only_looks_like_label_studio_s_is_a_name(tmp_path: Path, cell: str) -> None:
    rows = [[f"text {number}", (cell, "b")[number % 2]] for number in range(40)]
    write_csv(tmp_path, ["text", "label"], rows)
    assert set(load_task(dataset=str(tmp_path)).labels) == {cell, "b"}
