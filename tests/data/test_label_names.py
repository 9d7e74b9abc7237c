"""Labels that look the same are one label or a question, codes keep their zeros, decimal commas are numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tables import table

from augkd.data.label_names import find_name, settle_labels
from augkd.data.task import Task, load_task
from augkd.errors import DataError

E_ACUTE, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def task_of(tmp_path: Path, written: list[str], **options: Any) -> Task:
    """A task with ten texts of each label as it is written."""
    rows = [(f"text {number} {place}", label) for number in range(10) for place, label in enumerate(written)]
    return load_task(dataset=str(table(tmp_path / "a.csv", ["text", "label"], rows)), **options)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["us", "us ", "num", "num  ", " de", "de"], ("de", "num", "us")),
        ([E_ACUTE, DECOMPOSED, "tea", "tea\u200b", "wine"], (E_ACUTE, "tea", "wine")),
        (["very good", "very  good", "bad\u00a0", "bad"], ("bad", "very good")),
    ],
)
def test_labels_that_look_the_same_are_asked_about_and_merged_on_demand(
    tmp_path: Path, labels: list[str], names: tuple[str, ...]
) -> None:
    with pytest.raises(
        DataError, match=rf"a\.csv row \d+: label .*{len(labels)} labels are only {len(names)} .*merge_labels: true"
    ):
        task_of(tmp_path, labels)
    merged = task_of(tmp_path, labels, merge_labels=True)
    assert merged.labels == names
    assert f"{len(labels)} spellings of {len(names)} labels" in merged.notes[0]
    assert sum(map(len, (merged.train, merged.validation, merged.test))) == 10 * len(labels)
    kept = task_of(tmp_path, labels, merge_labels=False)
    assert kept.labels == tuple(sorted(labels))


def test_a_label_is_merged_into_the_given_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="merge_labels: true"):
        task_of(tmp_path, [DECOMPOSED, "tea"], labels=["tea", E_ACUTE])
    assert task_of(tmp_path, [DECOMPOSED, "tea"], labels=["tea", E_ACUTE], merge_labels=True).labels == ("tea", E_ACUTE)


def test_labels_that_differ_in_case_stay_apart_and_are_noted(tmp_path: Path) -> None:
    task = task_of(tmp_path, ["us", "US", "num"])
    assert task.labels == ("US", "num", "us")
    assert task.notes[0] == "labels 'US', 'us' differ in case only; each is a class of its own"
    assert not [note for note in task_of(tmp_path, ["us", "num"]).notes if "case" in note]


def test_codes_keep_their_leading_zeros(tmp_path: Path) -> None:
    assert task_of(tmp_path, ["0110", "0111", "2000"]).labels == ("0110", "0111", "2000")
    assert task_of(tmp_path, ["0110", "110", " 0110"]).labels == ("0110", "110")
    assert task_of(tmp_path, ["0", "1", "10"]).labels == ("0", "1", "10")
    assert {e.label for e in task_of(tmp_path, ["007", "08.5"], regression=True).train} == {7.0, 8.5}


def test_decimal_commas_are_numbers_and_noted(tmp_path: Path) -> None:
    task = task_of(tmp_path, ["4,5", "3", "-2,25"])
    assert (task.labels, task.metric) == ((), "pearson")
    assert {example.label for example in task.train} == {4.5, 3.0, -2.25}
    assert "4,5 is 4.5" in task.notes[0]
    assert "task.separator" in task.notes[0]
    assert task_of(tmp_path, ["4,5", "3", "-2,25"], regression=False).labels == ("-2,25", "3", "4,5")


def test_commas_that_may_stand_between_thousands_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label '1,234' may be 1\.234 or 1234"):
        task_of(tmp_path, ["1,234", "12,500", "7"])


@pytest.mark.parametrize(("label", "place"), [("us", 1), ("US", 0), ("Num", 2), ("uS", None), ("none", None)])
def test_a_name_is_found_exactly_first_and_by_case_only_where_one_fits(label: str, place: int | None) -> None:
    assert find_name(label, ["US", "us", "num "]) == place


def test_booleans_and_whole_numbers_written_as_floats_are_classes(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(40)]
    for labels, names in (
        ([True, False] * 20, ("False", "True")),
        ([1.0, 2.0] * 20, ("1", "2")),
        ([1.5, 2.0] * 20, ()),
        (pa.array(["no", "yes"] * 20).dictionary_encode(), ("no", "yes")),
    ):
        pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "a.parquet")
        assert load_task(dataset=str(tmp_path / "a.parquet")).labels == names
    assert task_of(tmp_path, ["1.0", "2.0"]).labels == ("1", "2")
    assert task_of(tmp_path, ["true", "false"]).labels == ("false", "true")
    pq.write_table(pa.table({"text": texts, "label": [True, False] * 20}), tmp_path / "a.parquet")
    named = load_task(dataset=str(tmp_path / "a.parquet"), labels=["no", "yes"])
    assert named.labels == ("no", "yes")
    assert {example.label for example in named.train if example.text in texts[::2]} == {1}


def test_names_that_look_the_same_and_are_only_given_are_one_line() -> None:
    written = {"train": [(1, "a"), (2, "b")]}
    with pytest.raises(DataError, match=r"labels: label 'c.* looks like 'c"):
        settle_labels(written, {"train": "x.csv"}, ("a", "b", "c", "c\u200b"), None, None, [])
