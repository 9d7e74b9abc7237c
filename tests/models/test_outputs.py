"""A saved student's configuration says what its head means: `pipeline` gives what the run itself predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.architectures import write_model
from support.tiny import LABELS, sentences

from augkd.data.target import Target
from augkd.models.classifier import Classifier, load_backbone, load_classifier
from augkd.models.layers import from_layers
from augkd.models.outputs import describe_outputs
from augkd.models.student_kinds import build_student

TEXTS: list[tuple[str, str | None]] = [
    *((text, None) for text, _ in sentences()[::11]),
    ("the cat is here and " * 30, None),
]
SIZES: dict[str, dict[str, int]] = {
    "scratch": {"layers": 1, "width": 8},
    "bilstm": {"width": 8},
    "static": {"width": 8},
}


def scores(folder: Path, texts: list[Any] = TEXTS, batch_size: int = 1) -> torch.Tensor:  # (n, outputs)
    """The scores that `pipeline` gives with its defaults, in the order of the outputs."""
    classify = transformers.pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    inputs = [text if pair is None else {"text": text, "text_pair": pair} for text, pair in texts]
    rows = classify(inputs, truncation=True, batch_size=batch_size)
    names = [name for _, name in sorted(classify.model.config.id2label.items())]
    by_name = [{entry["label"]: entry["score"] for entry in row} for row in rows]
    return torch.tensor([[row[name] for name in names] for row in by_name])


def edit(path: Path, **changes: Any) -> None:
    """Changes settings of a JSON file; None removes one."""
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def students_of(teacher: Classifier) -> list[Classifier]:
    """One student of every kind that is made from a teacher."""
    return [from_layers(teacher, [0, 2]), *(build_student(kind, sizes, teacher, 0) for kind, sizes in SIZES.items())]


def test_a_single_label_student_of_a_multi_label_checkpoint_gives_probabilities_of_one_class(tmp_path: Path) -> None:
    folder = write_model("bert", tmp_path / "teacher", labels=LABELS)
    edit(folder / "config.json", problem_type="multi_label_classification", function_to_apply="sigmoid")
    assert not torch.allclose(scores(folder).sum(1), torch.ones(len(TEXTS)), atol=1e-2)  # the twin: three sigmoids
    teacher = load_classifier(str(folder), LABELS, 32, precision="float32")
    for number, student in enumerate(students_of(teacher)):
        student.save(tmp_path / f"student-{number}")
        given = scores(tmp_path / f"student-{number}")
        torch.testing.assert_close(given.sum(1), torch.ones(len(TEXTS)))
        torch.testing.assert_close(given, student.predict(TEXTS).softmax(1), atol=1e-5, rtol=0)


def test_a_regression_student_s_pipeline_gives_the_number_that_the_run_predicts(tmp_path: Path) -> None:
    folder = write_model("bert", tmp_path / "teacher", labels=["score"])
    edit(folder / "config.json", problem_type=None)
    teacher = load_classifier(str(folder), (), 32, precision="float32")
    with torch.no_grad():
        teacher.model.classifier.bias.add_(3.156)
    for number, student in enumerate(students_of(teacher)):
        student.save(tmp_path / f"student-{number}")
        torch.testing.assert_close(scores(tmp_path / f"student-{number}"), student.predict(TEXTS), atol=1e-5, rtol=0)
    assert students_of(teacher)[0].predict(TEXTS).min() > 1  # no probability, as a sigmoid would make of it


def test_a_fine_tuned_backbone_loses_what_its_configuration_said_of_another_task(tmp_path: Path) -> None:
    folder = write_model("bert", tmp_path / "backbone", labels=["toxic", "insult", "threat"])
    edit(folder / "config.json", problem_type="multi_label_classification", function_to_apply="sigmoid")
    for name, labels in (("classes", LABELS), ("number", ())):
        load_backbone(str(folder), labels, 32, seed=0).save(tmp_path / name)
    classes, number = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("classes", "number"))
    assert classes["problem_type"] == "single_label_classification"
    assert (classes["id2label"], classes["function_to_apply"]) == ({"0": "animal", "1": "food", "2": "tool"}, "softmax")
    assert (number["problem_type"], number["id2label"]) == ("regression", {"0": "LABEL_0"})
    assert number["function_to_apply"] == "none"


def test_a_configuration_names_the_outputs_in_the_model_s_own_order(tmp_path: Path) -> None:
    config = transformers.BertConfig(num_labels=3)
    describe_outputs(config, Target(LABELS), order=(1, 2, 0))
    assert config.id2label == {0: "tool", 1: "animal", 2: "food"}
    assert config.label2id == {"tool": 0, "animal": 1, "food": 2}

    folder = write_model("bert", tmp_path / "shuffled", labels=["tool", "animal", "food"])
    teacher = load_classifier(str(folder), LABELS, 32, precision="float32")
    teacher.save(tmp_path / "saved")
    torch.testing.assert_close(scores(tmp_path / "saved")[:, [1, 2, 0]], teacher.predict(TEXTS).softmax(1))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_student_in_a_pipeline_cuts_long_texts_as_the_run_does(tmp_path: Path, batch_size: int) -> None:
    teacher = load_classifier(
        str(write_model("bert", tmp_path / "teacher", labels=LABELS)), LABELS, 24, precision="float32"
    )
    for number, student in enumerate(students_of(teacher)):
        student.save(tmp_path / f"student-{number}")
        own = student.predict(TEXTS).softmax(1)
        torch.testing.assert_close(
            scores(tmp_path / f"student-{number}", batch_size=batch_size), own, atol=1e-5, rtol=0
        )
        again = load_classifier(str(tmp_path / f"student-{number}"), LABELS, 512, precision="float32")
        assert again.max_length == 24
