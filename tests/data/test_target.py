"""A target encodes, decodes and predicts classes, several labels and numbers, and marks missing labels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augkd.data.target import NO_CLASS, Target, present
from augkd.evaluation.metrics import METRICS

CLASSES = Target(("no", "yes"))
NUMBER = Target()
SEVERAL = Target(("joy", "anger", "fear"), multi_label=True)


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
    assert sorted([*CLASSES.metrics, *SEVERAL.metrics, *NUMBER.metrics]) == sorted(METRICS)


def test_the_target_of_a_saved_model_is_read_from_its_labels() -> None:
    assert Target.of_config({"id2label": {"1": "yes", "0": "no"}}) == CLASSES
    names = {index: str(index) for index in range(11)}
    assert Target.of_config({"id2label": names}).labels[10] == "10", "ordered as numbers"
    assert Target.of_config({"id2label": {0: "LABEL_0"}}) == Target.of_config({}) == NUMBER


def test_the_distance_of_outputs_is_the_probability_that_moved() -> None:
    classes = Target(("a", "b", "c"))
    original = np.log(np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], dtype=np.float32))
    candidate = np.log(np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], dtype=np.float32)) + 5
    assert classes.distance(original, candidate) == pytest.approx([0.0, 0.5, 0.6], abs=1e-6)
    far = np.array([[1000.0, -1000.0]], dtype=np.float32)
    assert CLASSES.distance(far, -far) == pytest.approx([1.0])
    numbers = np.array([[1.5], [2.0]], dtype=np.float32)
    assert NUMBER.distance(numbers, np.array([[1.0], [4.0]], dtype=np.float32)) == pytest.approx([0.5, 2.0])
    several = np.array([[0.0, 0.0, 0.0]]), np.array([[np.log(3), -np.log(4), 0.0]])  # 0.75, 0.2, 0.5 from 0.5
    assert SEVERAL.distance(*several) == pytest.approx([0.3])


def test_several_labels_are_rows_of_0_and_1_and_a_missing_one_is_not_none_of_them() -> None:
    encoded = SEVERAL.encode([["fear", "joy"], [1], [], None])
    assert encoded[:3].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert encoded.dtype == np.float32
    assert np.isnan(encoded[3]).all()
    assert present(encoded).tolist() == [True, True, True, False]
    assert [SEVERAL.decode(value) for value in ((0, 2), (), None)] == [["joy", "fear"], [], None]


def test_several_labels_are_predicted_above_their_own_thresholds() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.8]]) / (1 - np.array([[0.5, 0.3, 0.8]])))
    assert SEVERAL.predictions(logits).tolist() == [[0, 0, 1]]
    chosen = Target(SEVERAL.labels, True, thresholds=(0.4, 0.2, 0.9))
    assert chosen.predictions(logits).tolist() == [[1, 1, 0]]
    assert SEVERAL.probabilities(logits)[0] == pytest.approx([0.5, 0.3, 0.8])
    assert SEVERAL.confidence(logits) == pytest.approx([0.5 * 0.7 * 0.8])
    assert chosen.confidence(logits) == pytest.approx([0.5 * 0.3 * 0.2]), "of the prediction at these thresholds"
    assert SEVERAL.predicted_names(logits) == [{"fear": pytest.approx(0.8)}]


def test_logits_come_back_from_probabilities() -> None:
    logits = np.array([[-2.0, 0.5, 3.0]])
    assert SEVERAL.logits_of(SEVERAL.probabilities(logits)) == pytest.approx(logits)
    assert CLASSES.probabilities(CLASSES.logits_of(np.array([[0.2, 0.8]]))) == pytest.approx(np.array([[0.2, 0.8]]))


def test_agreement_of_several_labels_is_the_jaccard_index() -> None:
    one, other = SEVERAL.encode([["joy", "fear"], [], ["joy"]]), SEVERAL.encode([["fear"], [], []])
    assert SEVERAL.agreement(one, other).tolist() == [0.5, 1, 0]
    assert SEVERAL.same(one, other).tolist() == [False, True, False]
    assert CLASSES.agreement(np.array([0, 1]), np.array([0, 0])).tolist() == [1, 0]


def test_the_stratum_of_several_labels_is_the_rarest_one() -> None:
    assert SEVERAL.strata([(0, 1), (0,), (0, 2), (1,), (), None]) == [1, 0, 2, 1, -1, None]
    assert CLASSES.strata([1, 0, None]) == [1, 0, None]
    assert NUMBER.strata([1.5, 2.0]) == [0, 0]


def test_the_target_of_several_labels_is_read_from_a_configuration_with_its_thresholds() -> None:
    config = {"id2label": {0: "joy", 1: "anger", 2: "fear"}, "problem_type": "multi_label_classification"}
    assert Target.of_config(config) == SEVERAL
    assert Target.of_config(config | {"thresholds": {"anger": 0.25}}).thresholds == (0.5, 0.25, 0.5)
    assert Target.of_config(config | {"problem_type": None}) == Target(SEVERAL.labels)
    assert [t.problem_type for t in (SEVERAL, CLASSES, NUMBER)] == [
        *("multi_label_classification", "single_label_classification", "regression")
    ]
