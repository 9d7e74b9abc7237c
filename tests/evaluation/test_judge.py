"""A judge scores labelled texts, and falls back on the teacher only where validation has no labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from augkd.data.target import Target
from augkd.data.task import Example, Task, Texts
from augkd.evaluation.judge import Judge, Remembered

CLASSES, NUMBER = Target(("a", "b")), Target()


class Constant:
    """A classifier that gives every text the same logits."""

    def __init__(self, *logits: float):
        self._logits = logits

    def predict(self, texts: Texts) -> torch.Tensor:
        return torch.tensor([self._logits] * len(texts))


def examples(labels: Sequence[float | None]) -> tuple[Example, ...]:
    return tuple(Example(str(place), f"text {place}", None, label) for place, label in enumerate(labels))


def judge(
    target: Target, validation: Sequence[float | None], test: Sequence[float | None] = (), teacher: object = None
) -> Judge:
    def teacher_logits(texts: Texts) -> NDArray[np.float32]:
        assert teacher is not None, "the teacher is not needed"
        return np.array(teacher, dtype=np.float32)

    metric, splits = target.metrics[0], [examples(labels) for labels in ([0], validation, test)]
    task = Task("toy", *splits, target.labels, metric, notes=(), fingerprint="f" * 64)
    return Judge(task, metric, target, teacher_logits)


def test_validation_is_scored_on_the_labelled_texts_only() -> None:
    assert judge(CLASSES, [1, None, 0, 1]).validation(Constant(0.0, 1.0)) == pytest.approx(2 / 3)


def test_validation_without_labels_is_scored_against_the_teacher() -> None:
    teacher = [[2.0, 1.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.5]]
    assert judge(CLASSES, [None] * 4, teacher=teacher).validation(Constant(0.0, 1.0)) == 0.5


def test_the_test_split_has_a_score_and_its_interval() -> None:
    scores = judge(CLASSES, [0], [1, 1, 1, 0] * 50).test(Constant(0.0, 1.0))
    assert scores["test"] == 0.75
    assert scores["test_interval"] == pytest.approx((0.69, 0.81), abs=0.02)  # 0.75 ± 1.96 √(0.75 · 0.25 / 200)


def test_a_test_split_that_lacks_a_label_has_no_score() -> None:
    assert judge(NUMBER, [0.5], [1.0, None]).test(Constant(0.0)) == {"test": None, "test_interval": None}


def test_a_validation_text_that_the_teacher_has_no_output_for_is_not_scored() -> None:
    teacher = [[2.0, 1.0], [np.nan, np.nan], [0.0, 3.0], [0.0, 0.5]]
    assert judge(CLASSES, [None] * 4, teacher=teacher).validation(Constant(0.0, 1.0)) == pytest.approx(2 / 3)


class Counting:
    """A classifier that says how long each text is, and counts the texts it was asked about."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []

    def predict(self, texts: Texts) -> torch.Tensor:
        self.asked += texts
        return torch.tensor([[float(len(text)), 0.0] for text, _ in texts]).reshape(-1, 2)


def test_no_text_is_predicted_twice_for_scores_and_thresholds() -> None:
    target, counting = Target(("a", "b"), multi_label=True), Counting()
    splits = [tuple(Example(f"{name}{n}", name * n, None, (0,)) for n in (1, 2, 2, 3)) for name in ("x", "y")]
    task = Task("toy", (), *splits, target.labels, "micro_f1", notes=(), fingerprint="f" * 64)
    asked = Judge(task, "micro_f1", target, lambda texts: np.zeros((0, 2), dtype=np.float32))
    known = Remembered(counting)
    assert asked.fitted(known) == asked.fitted(Counting())
    assert (asked.validation(known), asked.test(known)) == (asked.validation(Counting()), asked.test(Counting()))
    assert sorted(counting.asked) == [(name * n, None) for name in ("x", "y") for n in (1, 2, 3)]


def test_remembered_outputs_come_in_the_order_asked_for_and_none_for_no_text() -> None:
    known = Remembered(Counting())
    texts = [("aaa", None), ("a", None)]
    assert known.predict(texts).tolist() == [[3.0, 0.0], [1.0, 0.0]]
    assert known.predict([("bb", None), *texts[::-1]]).tolist() == [[2.0, 0.0], [1.0, 0.0], [3.0, 0.0]]
    assert Remembered(Counting()).predict([]).shape == (0, 2)
