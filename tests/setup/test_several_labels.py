"""`init` recognises texts with several labels however they are written, and what merely looks like it is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.several import EMOTIONS, emotional
from support.tables import table

from augkd.data.task import load_task
from augkd.recipe import dump, load_recipe
from augkd.setup.first_recipe import write_recipe
from augkd.setup.several_labels import separator_of
from augkd.setup.summary import summary
from augkd.setup.survey import TaskSurvey, survey_task

ROWS = [row for row in emotional(90) if row["label"]]


def as_lists(folder: Path) -> str:
    lines = "".join(json.dumps({"text": row["text"], "emotions": row["label"]}) + "\n" for row in ROWS)
    (folder / "data.jsonl").write_text(lines)
    return str(folder / "data.jsonl")


def as_strings(folder: Path) -> str:
    return table(folder / "data.csv", ["text", "emotion"], [(row["text"], "|".join(row["label"])) for row in ROWS])


def as_columns(folder: Path) -> str:
    rows = [(row["text"], *(int(name in row["label"]) for name in EMOTIONS)) for row in ROWS]
    return table(folder / "data.csv", ["text", *EMOTIONS], rows)


@pytest.mark.parametrize(
    ("write", "why", "lines"),
    [
        (as_lists, "label column 'emotions': its values are lists", ["label: emotions"]),
        (
            as_strings,
            "separator '|': the names it separates are labels of other rows, too",
            ["label: emotion", 'separator: "|"'],
        ),
        (
            as_columns,
            "label columns anger, fear, joy, surprise: they hold 0 and 1, one for each label",
            ["label: [anger, fear, joy, surprise]"],
        ),
    ],
)
def test_the_first_recipe_reads_the_labels_as_they_are_written(
    write: object, why: str, lines: list[str], tmp_path: Path
) -> None:
    assert callable(write)
    data = write(tmp_path)
    survey = survey_task(data)
    assert why in survey.columns.reasons
    assert survey.task.multi_label
    recipe = write_recipe(tmp_path / "recipe.yaml", survey, None, data)
    for line in lines:
        assert f"  {line}  #" in recipe
    assert "4 labels, any number of them per text: " in recipe
    task = load_task(**dump(load_recipe(str(tmp_path / "recipe.yaml")).task))
    assert (task.labels, task.multi_label) == (EMOTIONS, True)
    shown = "\n".join(summary(survey, None))
    counts = {name: sum(name in row["label"] for row in ROWS) for name in EMOTIONS}
    assert sum(survey.class_counts.values()) < sum(counts.values()), "of train alone"
    assert "metric: micro_f1" in shown


def named(folder: Path, *labels: str) -> TaskSurvey:
    rows = [(f"text number {number}", labels[number % len(labels)]) for number in range(40)]
    return survey_task(table(folder / "data.csv", ["text", "label"], rows))


@pytest.mark.parametrize("labels", [("Paris, France", "Rome, Italy"), ("4,5", "3,5", "4"), ("a", "b"), ("a;b", "c")])
def test_a_comma_in_a_name_or_a_number_separates_nothing(labels: tuple[str, ...], tmp_path: Path) -> None:
    survey = named(tmp_path, *labels)
    assert survey.columns.separator is None
    assert not survey.task.multi_label


def test_separators_are_found_by_labels_that_stand_alone_too() -> None:
    assert separator_of(["0,27,3", "0", "27", "3,0", "3"]) == ","
    assert separator_of(["a; b", "a", "b", None, ""]) == ";"
    assert separator_of(["a|b", "c|d"]) is None


def test_the_user_s_columns_and_separator_are_taken_as_given(tmp_path: Path) -> None:
    survey = survey_task(as_columns(tmp_path), label="joy,fear")
    assert survey.task.labels == ("joy", "fear")
    assert "label columns joy, fear: given with --label" in survey.columns.reasons
    survey = survey_task(as_strings(tmp_path), label="emotion", separator="|")
    assert "separator '|': given with --separator" in survey.columns.reasons
