"""Predictions are those of the labelled examples, from the student's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from augkd.errors import WorkspaceError
from augkd.evaluation.predictions import FILE, read_predictions


def write(folder: Path, labels: list[float], teacher: list[list[float]], dtype: type = np.int64) -> None:
    logits = np.arange(2 * len(labels), dtype=np.float32).reshape(len(labels), 2)
    tensors = {"test": logits, "test_labels": np.array(labels, dtype), "teacher_test": np.array(teacher, np.float32)}
    save_file(tensors, folder / FILE)


def test_examples_without_a_label_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, [1, -100, 0], [[0, 1], [2, 3], [4, 5]])
    predictions = read_predictions(tmp_path, "test")
    assert predictions is not None
    assert predictions.labels.tolist() == [1, 0]
    assert predictions.student.tolist() == [[0, 1], [4, 5]]
    assert predictions.teacher is not None
    assert predictions.teacher.tolist() == [[0, 1], [4, 5]]
    assert not predictions.target.regression


def test_a_teacher_that_lacks_a_labelled_example_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, [1, 0], [[0, 1], [np.nan, np.nan]])
    predictions = read_predictions(tmp_path, "test")
    assert predictions is not None
    assert predictions.teacher is None


def test_numbers_are_a_regression(tmp_path: Path) -> None:
    write(tmp_path, [0.5, np.nan], [[0, 0], [0, 0]], np.float32)
    predictions = read_predictions(tmp_path, "test")
    assert predictions is not None
    assert predictions.target.regression
    assert predictions.labels.tolist() == [0.5]


def test_no_file_and_no_labels_give_none(tmp_path: Path) -> None:
    assert read_predictions(tmp_path, "test") is None
    write(tmp_path, [-100], [[0, 1]])
    assert read_predictions(tmp_path, "test") is None


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(WorkspaceError, match=f"cannot read predictions from .*{FILE}.*; remove .* and run again"):
        read_predictions(tmp_path, "test")


@pytest.mark.parametrize(
    "changes",
    [
        {"test": np.zeros((3, 2), np.float32)},
        {"test": np.zeros(2, np.float32), "teacher_test": np.zeros(2, np.float32)},
        {"test": np.zeros((2, 0), np.float32), "teacher_test": np.zeros((2, 0), np.float32)},
        {"teacher_test": np.zeros((2, 3), np.float32)},
        {"test_labels": np.array([0, 2])},
        {"test_labels": np.array([0, 1, 1])},
        {"test_labels": np.array([[0, 1], [1, 0]])},
        {"test_labels": np.array([0, 1], np.uint8)},
        {"test_labels": np.zeros((2, 3), np.float32)},
    ],
)
def test_arrays_that_do_not_fit_each_other_are_an_error(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    arrays = {name: np.zeros((2, 2), np.float32) for name in ("test", "teacher_test")}
    save_file({**arrays, "test_labels": np.array([0, 1]), **changes}, tmp_path / FILE)
    with pytest.raises(WorkspaceError, match="cannot read predictions from"):
        read_predictions(tmp_path, "test")
