"""When a student may answer for its teacher: the command `calibrate`.

The texts are the run's validation split, whose outputs the run recorded, or others that the user names. Texts that the
student was trained on would promise too much, so they are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.data.cleaning import normalised
from augkd.data.target import Target, present
from augkd.data.task import Example, Task, load_task, texts_of
from augkd.errors import DataError, ModelError, WorkspaceError
from augkd.evaluation.calibration import Against, Calibration, Form, calibration, write_calibration
from augkd.evaluation.predictions import FILE, read_predictions
from augkd.ship.cascade import onnx_student
from augkd.ship.student_folder import StudentFolder, find_student, weights_fingerprint


@dataclass(frozen=True)
class _Texts:
    """What a student is calibrated on."""

    logits: NDArray[np.float32]  # (n, outputs) of the student
    reference: NDArray[Any]  # (n,) or (n, labels)
    source: str


def calibrate_student(
    folder: Path,
    *,
    agreement: float = 0.97,
    confidence: float = 0.95,
    against: Against = "teacher",
    data: Path | None = None,
    form: Form = "pytorch",
) -> Calibration:
    """Finds the confidence from which the student of a run agrees with `against` often enough, and stores it.

    `data` holds other texts, in the columns of the task. `form` is `int8` for the quantised ONNX student. Raises
    DataError where texts, outputs or labels are missing or too few, ModelError for a folder without a student.
    """
    student = find_student(folder)
    task = student.task()
    if task is None:
        raise ModelError(f"{student.folder} belongs to no known run; calibrate the student in its run's folder")
    target = student.target(task)
    if target.regression:
        raise DataError("a number has no confidence; only students of classes or labels can be calibrated")
    if data is None:
        texts = _validation(student, task, against, form)
    else:
        texts = _given(student, task, target, against, form, data)
    value = calibration(
        target,
        texts.logits,
        texts.reference,
        agreement=agreement,
        confidence=confidence,
        against=against,
        source=texts.source,
    )
    write_calibration(student.folder, weights_fingerprint(student.folder), form, value)
    return value


def _validation(student: StudentFolder, task: Task, against: Against, form: Form) -> _Texts:
    recorded = read_predictions(student.folder, "validation", labelled_only=False)
    if recorded is None or recorded.teacher is None:
        raise WorkspaceError(f"{student.folder / FILE} does not exist; name texts to calibrate on with --data")
    logits = _predict(student, task, task.validation, form)  # in the precision in which it will answer
    known = present(recorded.labels)
    reference = np.nan_to_num(recorded.labels).astype(np.int64)
    if against == "teacher":
        known = np.asarray(~np.isnan(recorded.teacher).any(axis=1))
        reference = recorded.teacher_target.predictions(recorded.teacher)
    if not known.any():
        what = "labels" if against == "labels" else "outputs of the teacher"
        raise DataError(f"the validation texts of {student.folder} have no {what}; name other texts with --data")
    return _Texts(logits[known], reference[known], "the validation split")


def _given(student: StudentFolder, task: Task, target: Target, against: Against, form: Form, data: Path) -> _Texts:
    examples = list(_unseen(student, task, data))
    if against == "labels":
        examples = [example for example in examples if example.label is not None]
    if not examples:
        raise DataError(f"{data} has no text to calibrate on that the student was not trained on; give others")
    logits = _predict(student, task, examples, form)
    if against == "labels":
        return _Texts(logits, target.encode([e.label for e in examples]).astype(np.int64), data.name)
    folder = student.teacher()
    if folder is None:
        raise DataError(f"the teacher of {student.folder} is no model that could label {data}; add --against labels")
    outputs = student.load(task, folder, target).predict(texts_of(examples)).numpy()
    return _Texts(logits, student.target(task, folder).predictions(outputs), data.name)


def _unseen(student: StudentFolder, task: Task, data: Path) -> Iterator[Example]:
    """The examples of a file or folder, without those that the student was trained on."""
    assert student.recipe is not None, "a student with a task has a recipe"
    options = dict(student.recipe["task"])
    columns = {
        name: options[name] for name in ("text", "text_pair", "label", "separator", "empty_label") if name in options
    }
    one_hot = not isinstance(options.get("label", ""), str)
    given = load_task(dataset=str(data), labels=None if one_hot else list(task.labels), **columns)
    trained = {_key(example) for example in task.train}
    for example in (*given.train, *given.validation, *given.test):
        if _key(example) not in trained:
            yield example


def _key(example: Example) -> tuple[str, str]:
    return normalised(example.text), normalised(example.text_pair or "")


def _predict(student: StudentFolder, task: Task, examples: Sequence[Example], form: Form) -> NDArray[np.float32]:
    classifier = student.load(task)
    model = classifier if form == "pytorch" else onnx_student(student.folder, classifier, form)
    logits: NDArray[np.float32] = model.predict(texts_of(examples)).numpy()
    return logits
