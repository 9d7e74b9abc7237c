"""What files leave open is decided where one reading is plausible, written into the recipe, and asked otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tables import table
from support.workbook import workbook
from typer.testing import CliRunner

from augkd.cli.app import app
from augkd.data.task import load_task
from augkd.errors import DataError, RecipeError
from augkd.recipe import dump, load_recipe
from augkd.setup.first_recipe import recipe_text
from augkd.setup.sniffing import Given, parse_splits
from augkd.setup.summary import next_commands, summary
from augkd.setup.survey import TaskSurvey, survey_corpus, survey_task

ROWS = [
    (f"Das Café Nummer {n} war {('schön; gut', 'mäßig, naja')[n % 2]}", ("gut", "schlecht")[n % 2]) for n in range(60)
]


def written(
    tmp_path: Path, dataset: Path, given: Given | None = None, corpus: Path | None = None
) -> tuple[TaskSurvey, str]:
    """The survey and its recipe, which must read the same task."""
    task = survey_task(str(dataset), given=given or Given())
    unlabelled = survey_corpus(str(corpus), task) if corpus else None
    text = recipe_text(task, unlabelled, str(dataset), tmp_path)
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    assert load_task(**dump(recipe.task)).fingerprint == task.task.fingerprint
    return task, text


def csv_bytes(delimiter: str, encoding: str) -> bytes:
    lines = [f'"{text}"{delimiter}{label}' for text, label in ROWS]
    return "\r\n".join([f"text{delimiter}label", *lines]).encode(encoding)


def test_a_semicolon_file_of_excel_is_read_and_what_was_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv_bytes(";", "cp1252"))
    task, text = written(tmp_path, tmp_path / "a.csv")
    lines = list(summary(task, None))
    assert "          encoding: cp1252 (a.csv is not UTF-8, and this reads it well: Café)" in lines
    assert "          note: train: read as cp1252, with semicolons between columns" in lines
    assert "  encoding: cp1252  # a.csv is not UTF-8" in text
    assert "delimiter" not in text, "the file shows it"


def test_an_encoding_that_is_not_clear_is_asked_for_and_taken_when_given(tmp_path: Path) -> None:
    words = "Le café était très élégant, ça coûte 5 € — «voilà»"
    table_text = "text,label\n" + "".join(f'"{words} {n}",{"ab"[n % 2]}\n' for n in range(40))
    (tmp_path / "a.csv").write_bytes(table_text.encode("cp1252"))
    with pytest.raises(
        DataError, match=r"it may be cp125. \(.*\) or cp125. \(.*\): give --encoding cp1252, or the right"
    ):
        survey_task(str(tmp_path / "a.csv"))
    task, text = written(tmp_path, tmp_path / "a.csv", Given(encoding="cp1252"))
    assert task.task.train[0].text.startswith(words)
    assert "  encoding: cp1252  # given" in text


def test_a_damaged_utf8_file_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv_bytes(",", "utf-8") + "\r\ncaf\udce9,gut".encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match="not UTF-8"):
        survey_task(str(tmp_path / "a.csv"))


def test_a_corpus_in_another_encoding_is_read_and_noted(tmp_path: Path) -> None:
    data = Path(table(tmp_path / "a.csv", ["text", "label"], ROWS))
    for name, encoding, how in (("b.txt", "cp1252", "as cp1252"), ("c.txt", "utf-16", "as utf-16")):
        (tmp_path / name).write_bytes("".join(f"{text} heute\n" for text, _ in ROWS).encode(encoding))
        task, text = written(tmp_path, data, corpus=tmp_path / name)
        corpus = survey_corpus(str(tmp_path / name), task)
        assert (corpus.counts.kept, corpus.counts.bad_encoding) == (60, 0)
        assert f"          read {how}" in list(summary(task, corpus))
        assert ("encoding: cp1252" in text) == (encoding == "cp1252")


def test_a_test_file_without_labels_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "kaggle"
    folder.mkdir()
    table(folder / "train.csv", ["id", "text", "target"], [(n, *row) for n, row in enumerate(ROWS)])
    table(folder / "test.csv", ["id", "text"], [(n, text) for n, (text, _) in enumerate(ROWS)])
    table(folder / "sample_submission.csv", ["id", "target"], [(n, "gut") for n in range(60)])
    task, text = written(tmp_path, folder)
    assert (len(task.task.train), len(task.task.validation), len(task.task.test)) == (48, 6, 6)
    assert "  splits: {train: train.csv}  # test.csv (test) has no labels; left out" in text
    labelled = folder / "labelled.csv"
    table(labelled, ["id", "text", "target"], [(n, f"noch {row[0]}", row[1]) for n, row in enumerate(ROWS)])
    task, text = written(tmp_path, folder, Given(splits=parse_splits("train=train.csv, test=labelled.csv")))
    assert len(task.task.test) == 60
    assert "  splits: {train: train.csv, test: labelled.csv}  # given" in text


def test_splits_on_the_command_line_are_checked() -> None:
    assert parse_splits("train=a.csv,test=b/c.csv") == {"train": "a.csv", "test": "b/c.csv"}
    with pytest.raises(RecipeError, match="has no split 'trian'; did you mean 'train'"):
        parse_splits("trian=a.csv")
    with pytest.raises(RecipeError, match="write it like train="):
        parse_splits("a.csv")


def test_labels_that_look_the_same_are_asked_about_with_the_option(tmp_path: Path) -> None:
    rows = [(text, label + " " * (place % 3 == 0)) for place, (text, label) in enumerate(ROWS)]
    data = Path(table(tmp_path / "a.csv", ["text", "label"], rows))
    with pytest.raises(DataError, match="--merge-labels of init"):
        survey_task(str(data))
    task, text = written(tmp_path, data, Given(merge_labels=True))
    assert task.class_counts == {"gut": 24, "schlecht": 24}
    assert "  merge_labels: true  # given" in text
    assert "merge_labels: false" in written(tmp_path, data, Given(merge_labels=False))[1]


def test_a_workbook_with_a_given_sheet_makes_a_recipe(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"notes": [["hello"]], "reviews": [["text", "label"], *ROWS]})
    with pytest.raises(DataError, match="--sheet of init"):
        survey_task(str(path))
    _, text = written(tmp_path, path, Given(sheet="reviews"))
    assert "  sheet: reviews  # given" in text


def test_exports_of_label_studio_are_recognised(tmp_path: Path) -> None:
    header = ["annotation_id", "annotator", "created_at", "id", "lead_time", "mood", "text", "updated_at"]
    rows = [(n, n % 3, "2024-01-01", n, n % 7, label, text, "2024-01-02") for n, (text, label) in enumerate(ROWS)]
    assert survey_task(table(tmp_path / "a.csv", header, rows)).columns.label == "mood"
    tasks = [
        {
            **{"id": n, "data": {"text": text}},
            "annotations": [{"result": [{"from_name": "mood", "value": {"choices": [label]}}]}],
        }
        for n, (text, label) in enumerate(ROWS)
    ]
    (tmp_path / "b.json").write_text(json.dumps(tasks))
    task, _ = written(tmp_path, tmp_path / "b.json")
    assert (task.columns.text, task.columns.label) == ("text", "mood")
    assert task.class_counts == {"gut": 24, "schlecht": 24}


def test_a_column_without_labels_is_an_error(tmp_path: Path) -> None:
    data = table(tmp_path / "a.csv", ["text", "label"], [(text, "") for text, _ in ROWS])
    with pytest.raises(DataError, match="column 'label' has no label; name another with --label"):
        survey_task(data)


def test_next_commands_quote_paths_with_spaces() -> None:
    assert next_commands(Path("my recipes/a b.yaml"))[1] == "augkd run 'my recipes/a b.yaml' --out 'runs/a b'"


def test_the_command_passes_on_what_the_user_says(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    rows = [(text, label + " " * (place % 3 == 0)) for place, (text, label) in enumerate(ROWS)]
    content = "".join(f'"{text}"|{label}\n' for text, label in [("text", "label"), *rows])
    (folder / "one.csv").write_bytes(content.encode("cp1252"))
    (tmp_path / "more.txt").write_bytes("noch ein Café\nund größer\n".encode("cp1252"))
    command = ["init", str(folder), "--splits", "train=one.csv", "--encoding", "cp1252", "--delimiter", "|"]
    command += ["--merge-labels", "--corpus", str(tmp_path / "more.txt"), "--corpus-encoding", "cp1252"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "r.yaml"), "--json"])
    assert result.exit_code == 0, result.output
    options = {"encoding": "cp1252", "delimiter": "|", "splits": {"train": "one.csv"}, "merge_labels": True}
    values = json.loads(result.stdout)
    assert values["options"] == options
    assert values["classes"] == {"gut": 24, "schlecht": 24}
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert {name: dump(recipe.task)[name] for name in options} == options
    assert "encoding: cp1252\n      encoder" in (tmp_path / "r.yaml").read_text()
