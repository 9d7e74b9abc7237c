"""A calibrated student answers where it may and gives None for the rest, in PyTorch and ONNX."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command_line import Augkd
from support.tiny import sentences

from augkd.errors import DataError, ModelError, WorkspaceError
from augkd.evaluation.calibration import read_calibrations
from augkd.evaluation.report.report import write_report
from augkd.models.classifier import load_classifier
from augkd.recipe import load_recipe
from augkd.runs.cards import write_cards
from augkd.runs.run import Run
from augkd.ship.calibrate import calibrate_student
from augkd.ship.cascade import Cascade
from augkd.ship.export import export_student
from augkd.workspace.checksums import read_signed, write_signed

TEXTS = [text for text, _ in sentences(60)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than models of width 32."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A finished run whose student is uncertain about some validation texts: it is trained for one epoch."""
    folder = tmp_path_factory.mktemp("cascade")
    splits = {"train": sentences(0), "validation": [*sentences(10), *sentences(20)], "test": sentences(30)[:18]}
    for split, rows in splits.items():
        lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        (folder / "task").mkdir(exist_ok=True)
        (folder / "task" / f"{split}.jsonl").write_text(lines)
    (folder / "recipe.yaml").write_text(
        f"""\
task: {{dataset: task}}
teacher: {{model: {tiny_bert}, epochs: 8, learning_rate: 3.0e-3}}
student: {{layers: [0, 2]}}
training: {{kd: {{}}, epochs: 2, learning_rate: 2.0e-3, max_length: 32, precision: float32}}
"""
    )
    Run(load_recipe(str(folder / "recipe.yaml")), folder / "run").results()
    return folder / "run"


@pytest.fixture
def calibrated(run: Path) -> Iterator[Path]:
    calibrate_student(run, agreement=0.8, confidence=0.9)
    yield run
    (run / "student" / "calibration.json").unlink()


def test_the_cascade_answers_exactly_where_the_scaled_confidence_reaches_the_threshold(calibrated: Path) -> None:
    cascade = Cascade(calibrated)
    value = cascade.calibration
    assert value.threshold is not None
    labels = ("animal", "food", "tool")
    student = load_classifier(str(calibrated / "student"), labels, 32, precision="float32")
    logits = student.predict([(text, None) for text in TEXTS]).numpy().astype(np.float64) / value.temperature
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = [labels[row.argmax()] if row.max() >= value.threshold else None for row in probabilities]
    assert cascade.predict(TEXTS) == wanted
    assert cascade.predict([(text, None) for text in TEXTS]) == wanted
    assert cascade.predict([]) == []


def test_a_threshold_that_nothing_passes_gives_none_for_every_text(run: Path) -> None:
    value = calibrate_student(run, agreement=0.8, confidence=0.9)
    path = run / "student" / "calibration.json"
    stored = read_signed(path)
    stored["forms"]["pytorch"]["threshold"] = None
    path.write_text(json.dumps(stored))
    with pytest.raises(WorkspaceError, match=r"calibration\.json is damaged: .*run augkd calibrate again"):
        Cascade(run)
    write_signed(path, stored)
    assert Cascade(run).predict(TEXTS[:3]) == [None, None, None]
    assert value.tested == 135
    path.unlink()


def test_the_onnx_form_answers_as_pytorch_does_and_int8_is_calibrated_on_its_own(calibrated: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    with pytest.raises(ModelError, match=r"has no onnx/model.onnx of its weights; run: augkd export"):
        Cascade(calibrated, "onnx")
    export_student(calibrated)
    assert Cascade(calibrated, "onnx").predict(TEXTS) == Cascade(calibrated).predict(TEXTS)
    with pytest.raises(ModelError, match=r"is not calibrated; run: augkd calibrate .* --form int8"):
        Cascade(calibrated, "int8")
    calibrate_student(calibrated, agreement=0.8, confidence=0.9, form="int8")
    assert set(read_calibrations(calibrated / "student")) == {"pytorch", "int8"}
    assert len(Cascade(calibrated, "int8").predict(TEXTS)) == len(TEXTS)


def test_a_student_that_was_trained_again_is_not_calibrated(calibrated: Path) -> None:
    path = calibrated / "student" / "calibration.json"
    write_signed(path, read_signed(path) | {"weights": "0"})
    with pytest.raises(ModelError, match="is not calibrated; run: augkd calibrate"):
        Cascade(calibrated)


def test_report_and_card_state_the_promise(calibrated: Path) -> None:
    value = read_calibrations(calibrated / "student")["pytorch"]
    page = write_report(calibrated).read_text()
    assert "coverage by class of the teacher" in page
    assert f"its confidence is at least {value.threshold:.4f}" in page
    write_cards(calibrated)
    card = (calibrated / "student" / "README.md").read_text()
    assert "agree with the teacher on at least 80.0% of the texts it answers" in card
    assert f"probability is at least {value.threshold:.4f}" in card


def test_other_texts_are_labelled_by_the_teacher_and_those_of_the_training_are_left_out(
    run: Path, tmp_path: Path
) -> None:
    rows = [*sentences(40), *sentences(50), *sentences(0)]  # the last 90 were trained on
    path = tmp_path / "logs.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in rows))
    value = calibrate_student(run, agreement=0.8, confidence=0.9, data=path)
    assert (value.texts, value.source, value.against) == (180, "logs.jsonl", "teacher")
    with pytest.raises(DataError, match="has no text to calibrate on that the student was not trained on"):
        calibrate_student(run, data=path, against="labels")
    (run / "student" / "calibration.json").unlink()


def test_the_command_prints_the_promise_and_too_few_texts_are_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    augkd = Augkd(monkeypatch, capsys)
    done = augkd("calibrate", run, "--agreement", 0.8, "--confidence", 0.9, "--against", "labels")
    assert done.code == 0, done.err
    assert "agrees with the labels on at least 80.0% (confidence 90%)" in done.out
    assert "texts, answered" in done.out
    short = augkd("calibrate", run, "--agreement", 0.999, "--confidence", 0.99)
    assert short.code == 1
    assert "180 texts are too few to promise an agreement of 0.999" in short.err
    (run / "student" / "calibration.json").unlink()
