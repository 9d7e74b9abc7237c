"""JSON as lines, as an array, as columns, as one object and as Label Studio exports it gives the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from augkd.data import json_rows
from augkd.data.tables import column_names, read_rows, read_texts
from augkd.errors import DataError

ROWS = [{"text": f"text, number {n} [x]", "label": "ab"[n % 2]} for n in range(30)]
SHAPES: dict[str, Any] = {
    "array": json.dumps(ROWS),
    "indented array": json.dumps(ROWS, indent=2),
    "array on lines": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "lines": "\n\n".join(map(json.dumps, ROWS)),
    "records under data": json.dumps({"schema": {"fields": [{"name": "text"}]}, "data": ROWS}, indent=1),
    "records under another name": json.dumps({"version": 2, "examples": ROWS}),
    "columns of lists": json.dumps({name: [row[name] for row in ROWS] for name in ("text", "label")}),
    "columns of pandas": json.dumps(
        {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ("text", "label")}
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk", [7, 1 << 16])
def test_every_shape_gives_the_same_rows(
    tmp_path: Path, shape: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(SHAPES[shape])
    assert list(read_rows(path)) == ROWS
    assert column_names(path) == ["text", "label"]


def test_one_line_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"text": "only", "tags": ["x", "y"]}')
    assert list(read_rows(tmp_path / "a.json")) == [{"text": "only", "tags": ["x", "y"]}]
    (tmp_path / "a.json").write_text("")
    assert list(read_rows(tmp_path / "a.json")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"}, {"text": "b"', r"a\.json is not valid JSON after item 1 \(Expecting"),
        ('[{"text": "a"}, ', r"a\.json is not valid JSON after item 1 \(its \] is missing\)"),
        ('[{"text": "a"}, 7]', r"a\.json item 2 is a int, not an object: 7; write rows as"),
        ('[{"text": "a"}] more', r"a\.json goes on after its array: 'more'"),
        ('{\n"text": ["a",\n', r"a\.json is not valid JSON \("),
        ('{"text": "a"}\n{"text": \n', r"a\.json line 2 is not valid JSON"),
    ],
)
def test_damage_is_reported_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(path))


def test_a_truncated_array_gives_its_complete_items_then_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS)[:-20])
    *texts, damage = read_texts(path, "text")
    assert texts == [row["text"] for row in ROWS[:-1]]
    assert damage.whole


def label_studio(*annotations: list[str], **more: Any) -> dict[str, Any]:
    results = [
        {"result": [{"from_name": "sentiment", "type": "choices", "value": {"choices": chosen}}]}
        for chosen in annotations
    ]
    return {"id": 7, "data": {"text": "a text", "source": "web"}, "annotations": results, "predictions": []} | more


def test_label_studio_tasks_become_rows_of_their_data_and_choices(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    cancelled = label_studio(["good"])
    cancelled["annotations"].append(
        {"was_cancelled": True, "result": label_studio(["bad"])["annotations"][0]["result"]}
    )
    tasks = [
        label_studio(["good"]),
        label_studio(["good"], ["good"]),
        label_studio(["bad", "long"]),
        cancelled,
        label_studio(),
    ]
    path.write_text(json.dumps(tasks))
    same = {"id": 7, "text": "a text", "source": "web"}
    assert list(read_rows(path)) == [
        {**same, "sentiment": "good"},
        {**same, "sentiment": "good"},
        {**same, "sentiment": ["bad", "long"]},
        {**same, "sentiment": "good"},
        same,
    ]
    path.write_text(json.dumps([label_studio(["good"]), label_studio(["good"], ["bad"])]))
    with pytest.raises(DataError, match=r"a\.json item 2: annotations of 'sentiment' disagree \('good', 'bad'\)"):
        list(read_rows(path))
