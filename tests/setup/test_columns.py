"""Columns are guessed from names first and values second, and an option overrides every guess."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tables import table

from augkd.errors import DataError
from augkd.setup.survey import survey_task


def test_columns_are_recognised_by_name_and_otherwise_by_their_values(tmp_path: Path) -> None:
    rows = [(n, f"a rather long remark number {n}", ("good", "bad")[n % 2], n * 0.5) for n in range(60)]
    named = survey_task(table(tmp_path / "a.csv", ["id", "Review", "Category", "x"], rows)).columns
    assert (named.text, named.label) == ("Review", "Category")
    assert named.reasons == (
        "text column 'Review': recognised by its name",
        "label column 'Category': recognised by its name",
    )
    plain = survey_task(table(tmp_path / "b.csv", ["nr", "remark", "kind", "x"], rows)).columns
    assert (plain.text, plain.label) == ("remark", "kind")
    assert plain.reasons[0] == "text column 'remark': longest texts, 6 words on average"
    assert plain.reasons[1] == "label column 'kind': fewest distinct values, 2 in the first 60 rows"


def test_a_split_column_is_not_taken_for_a_label(tmp_path: Path) -> None:
    rows = [(f"text {n}", ("a", "b")[n % 2], ("w", "v", "u")[n % 3]) for n in range(60)]
    assert survey_task(table(tmp_path / "a.csv", ["text", "split", "kind"], rows)).columns.label == "kind"


def test_a_column_that_the_user_names_is_not_guessed(tmp_path: Path) -> None:
    rows = [(f"one {n}", f"a longer text {n}", ("a", "b")[n % 2], ("u", "v")[n % 2]) for n in range(40)]
    data = table(tmp_path / "a.csv", ["text", "body", "label", "kind"], rows)
    chosen = survey_task(data, text="body", label="kind").columns
    assert (chosen.text, chosen.label) == ("body", "kind")
    assert chosen.reasons == ("text column 'body': given with --text", "label column 'kind': given with --label")
    with pytest.raises(DataError, match="did you mean 'body'"):
        survey_task(data, text="bodi")


def test_pairs_are_recognised_by_their_names_only(tmp_path: Path) -> None:
    rows = [(f"it rains {n}", f"it is wet {n}", n % 2) for n in range(40)]
    pair = survey_task(table(tmp_path / "a.csv", ["premise", "hypothesis", "label"], rows))
    assert (pair.columns.text, pair.columns.text_pair) == ("premise", "hypothesis")
    assert pair.task.is_pair
    assert pair.lengths.median_words == 7, "both texts count"
    lone = survey_task(table(tmp_path / "b.csv", ["title", "abstract", "label"], rows))
    assert lone.columns.text_pair is None


def test_files_without_a_label_or_a_text_are_an_error_with_the_option_that_names_one(tmp_path: Path) -> None:
    lone = table(tmp_path / "a.csv", ["text", "more"], [(f"a {n}", f"b {n}") for n in range(60)])
    with pytest.raises(DataError, match=r"no column looks like a label \(columns: text, more\); name it with --label"):
        survey_task(lone)
    numbers = tmp_path / "b.jsonl"
    numbers.write_text("".join(json.dumps({"label": n % 2, "x": n}) + "\n" for n in range(40)))
    with pytest.raises(DataError, match=r"no column looks like a text .* name it with --text"):
        survey_task(str(numbers))


def test_an_unnamed_an_empty_and_a_running_column_are_not_taken_for_a_label(tmp_path: Path) -> None:
    rows = [(n, f"a rather long remark number {n}", ("good", "bad")[n % 2], "", n) for n in range(18)]
    named = survey_task(table(tmp_path / "a.csv", ["", "remark", "kind", "empty", "nr"], rows)).columns
    assert (named.text, named.label) == ("remark", "kind")
    lone = [(n, f"a rather long remark number {n}", "", n) for n in range(18)]
    with pytest.raises(DataError, match="no column looks like a label"):
        survey_task(table(tmp_path / "b.csv", ["", "remark", "empty", "nr"], lone))
