"""A target encodes, decodes and predicts classes and numbers alike, and marks missing labels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augkd.data.target import NO_CLASS, Target, present
from augkd.evaluation.metrics import METRICS

CLASSES = Target(("no", "yes"))
NUMBER = Target()


def test_class_labels_are_encoded_from_names_and_indices_alike() -> None:
    encoded = CLASSES.encode(["yes", 0, None, "no", 1])
    assert encoded.tolist() == [1, 0, NO_CLASS, 0, 1]
    assert encoded.dtype == np.int64
    assert present(encoded).tolist() == [True, True, False, True, True]


def test_numbers_are_encoded_as_float32_with_nan_where_one_is_missing() -> None:
    encoded = NUMBER.encode([1, None, 2.5])
    assert encoded.dtype == np.float32
    assert present(encoded).tolist() == [True, False, True]
    assert encoded[[0, 2]].tolist() == [1.0, 2.5]
    assert math.isnan(NUMBER.missing)


def test_an_unknown_class_name_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="maybe"):
        CLASSES.encode(["maybe"])


def test_logits_predict_the_largest_class_or_the_number_itself() -> None:
    assert CLASSES.predictions(np.array([[0.0, 1.0], [2.0, 1.0]])).tolist() == [1, 0]
    assert NUMBER.predictions(np.array([[0.5], [-1.5]])).tolist() == [0.5, -1.5]
    assert (CLASSES.outputs, NUMBER.outputs) == (2, 1)


def test_decoding_gives_back_what_was_encoded() -> None:
    assert [CLASSES.decode(value) for value in (1, 0, None)] == ["yes", "no", None]
    assert [NUMBER.decode(value) for value in (1.5, None)] == [1.5, None]


def test_every_metric_applies_to_one_kind_of_target() -> None:
    assert sorted([*CLASSES.metrics, *NUMBER.metrics]) == sorted(METRICS)


def test_the_target_of_a_saved_model_is_read_from_its_labels() -> None:
    assert Target.of_outputs({"1": "yes", "0": "no"}) == CLASSES
    assert Target.of_outputs({index: str(index) for index in range(11)}).labels[10] == "10", "ordered as numbers"
    assert Target.of_outputs({0: "LABEL_0"}) == Target.of_outputs({}) == NUMBER
