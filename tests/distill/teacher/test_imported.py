"""Answers of people or batch jobs: handed out, partly answered, imported, and wrong rows named by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augkd.distill.teacher.answer_store import AnswerStore
from augkd.distill.teacher.asked import AskedTeacher
from augkd.distill.teacher.imported import ImportedAnswers, hand_out, import_answers, text_id
from augkd.errors import DataError
from augkd.recipe import TeacherOptions

LABELS = ("animal", "food", "tool")
TEXTS = [("a cat", None), ("a pear", None), ("a saw", None), ("a cat", "a dog")]


def teacher(folder: Path, **options: Any) -> AskedTeacher:
    parsed = TeacherOptions.model_validate({"answers": str(folder), **options})
    return AskedTeacher(ImportedAnswers(parsed, LABELS, AnswerStore(folder)), len(LABELS), ())


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_texts_go_out_with_ids_and_an_empty_label_and_come_back_by_id_alone(tmp_path: Path) -> None:
    out = tmp_path / "texts.jsonl"
    hand_out(tmp_path / "answers", TEXTS, out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[0] == {"id": text_id(TEXTS[0]), "text": "a cat", "label": None}
    assert rows[3]["text_pair"] == "a dog"
    assert len({row["id"] for row in rows}) == 4
    answered = lines(
        tmp_path / "answers.jsonl",
        {"id": rows[0]["id"], "label": "animal"},
        {"id": rows[1]["id"], "probabilities": [0.2, 0.7, 0.1]},
        {"id": rows[3]["id"], "logits": {"tool": 0.0, "food": 1.0, "animal": 2.0}},
        {"id": rows[2]["id"], "label": None},
    )
    counts = import_answers(tmp_path / "answers", answered, LABELS, None)
    assert (counts.answers, counts.left_out, counts.replaced, counts.empty) == (3, 0, 0, [rows[2]["id"]])
    logits = teacher(tmp_path / "answers", missing="drop").logits(TEXTS)
    assert np.exp(logits[0]) == pytest.approx([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3], abs=1e-6)
    assert np.exp(logits[1]) == pytest.approx([0.2, 0.7, 0.1], abs=1e-6)
    assert np.isnan(logits[2]).all()
    assert logits[3] - logits[3][2] == pytest.approx([2.0, 1.0, 0.0], abs=1e-6)


def test_lists_are_read_in_the_order_of_the_teachers_labels(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "a saw", "probabilities": [0.7, 0.2, 0.1]})
    import_answers(tmp_path / "answers", path, LABELS, ["tool", "food", "animal"])
    assert np.exp(teacher(tmp_path / "answers").logits([TEXTS[2]])[0]) == pytest.approx([0.1, 0.2, 0.7], abs=1e-6)


def test_a_text_without_an_answer_is_an_error_that_says_how_to_get_one(tmp_path: Path) -> None:
    import_answers(
        tmp_path / "answers", lines(tmp_path / "a.jsonl", {"text": "a cat", "label": "animal"}), LABELS, None
    )
    asked = teacher(tmp_path / "answers")
    assert asked.logits([TEXTS[0]]).shape == (1, 3)
    with pytest.raises(DataError, match=r"2 texts have no answer.*'a pear'.*augkd label next"):
        asked.logits(TEXTS[:3])


def test_a_text_that_cannot_be_answered_is_left_out_with_its_reason(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "a cat", "left_out": "not English"}, {"text": "a saw", "label": "tool"})
    counts = import_answers(tmp_path / "answers", path, LABELS, None)
    assert (counts.answers, counts.left_out) == (1, 1)
    asked = teacher(tmp_path / "answers")
    assert np.isnan(asked.logits([TEXTS[0], TEXTS[2]])).any(axis=1).tolist() == [True, False]
    assert asked.left_out([TEXTS[0]])[0].reason == "not English"


def test_a_later_answer_replaces_an_earlier_one_and_the_same_one_again_does_not(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "a cat", "label": "tool"}, {"text": "a saw", "label": "tool"})
    import_answers(tmp_path / "answers", path, LABELS, None)
    assert import_answers(tmp_path / "answers", path, LABELS, None).replaced == 0
    corrected = lines(tmp_path / "b.jsonl", {"text": "a cat", "label": "animal"})
    assert import_answers(tmp_path / "answers", corrected, LABELS, None).replaced == 1
    assert teacher(tmp_path / "answers").logits([TEXTS[0]])[0].argmax() == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{broken", r"a\.jsonl:2 is not JSON"),
        ("[1, 2]", r"a\.jsonl:2 is \[1, 2\]; write an object"),
        ({"id": "nobody", "label": "tool"}, r"a\.jsonl:2 has no text, and its id 'nobody' was not handed out"),
        ({"text": "x", "label": "tol"}, r"a\.jsonl:2 has the label 'tol'; did you mean 'tool'"),
        ({"text": "x", "label": "tool", "logits": [1, 2, 3]}, r"a\.jsonl:2 has label and logits; give one"),
        ({"text": "x", "probabilities": [0.5, 0.5]}, r"a\.jsonl:2 has the probabilities \[0\.5, 0\.5\]"),
        ({"text": "x", "probabilities": [0.5, 0.5, 0.5]}, r"a\.jsonl:2 has probabilities that add up to 1\.500"),
        ({"text": "x", "probabilities": [1.5, -0.5, 0]}, r"a\.jsonl:2 has 1\.5 among its probabilities"),
        ('{"text": "x", "logits": [NaN, 1, 2]}', r"a\.jsonl:2 has nan among its logits"),
        ({"text": "x", "logits": {"tool": 1, "food": 2}}, r"a\.jsonl:2 has the logits"),
    ],
)
def test_a_wrong_row_is_named_by_its_line_and_nothing_is_added(tmp_path: Path, row: object, message: str) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "a cat", "label": "animal"}, row)
    with pytest.raises(DataError, match=message):
        import_answers(tmp_path / "answers", path, LABELS, None)
    store = AnswerStore(tmp_path / "answers")
    store.refresh()
    assert len(store) == 0


def test_a_text_that_was_changed_on_the_way_is_an_error(tmp_path: Path) -> None:
    hand_out(tmp_path / "answers", TEXTS, tmp_path / "texts.jsonl")
    changed = lines(tmp_path / "a.jsonl", {"id": text_id(TEXTS[0]), "text": "A cat", "label": "animal"})
    with pytest.raises(DataError, match="is not the one that was handed out"):
        import_answers(tmp_path / "answers", changed, LABELS, None)
