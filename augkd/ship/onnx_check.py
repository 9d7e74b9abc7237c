"""ONNX against PyTorch: the same texts through both, so that what an export loses is measured and not assumed.

The texts are the validation split of the student's run. A student folder without its run gets texts of random tokens:
enough to find a broken graph, not to score it.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from augkd.data.task import Task, texts_of
from augkd.evaluation.metrics import score
from augkd.models.classifier import Classifier, Pair
from augkd.models.onnx_graph import session
from augkd.ship.export_record import LogitCheck, PyTorchFigures
from augkd.ship.onnx_classifier import OnnxClassifier

RANDOM_TEXTS = 64  # for a student whose task is unknown


class OnnxCheck:
    """PyTorch's logits of the check texts, computed once and compared with those of each ONNX graph."""

    def __init__(self, classifier: Classifier, task: Task | None) -> None:
        self._classifier, self._target = classifier, classifier.target
        self._texts = texts_of(task.validation) if task else random_texts(classifier)
        self._labels = [example.label for example in task.validation] if task else []
        metrics = self._target.metrics
        self._metric = task.metric if task and task.metric in metrics else metrics[0]
        self._source = "validation" if task else "random tokens"
        self._logits = classifier.predict(self._texts)

    def pytorch(self, weight_bytes: int) -> PyTorchFigures:
        """The figures of the PyTorch student itself."""
        value = self._score(self._logits)
        return {
            "texts": len(self._texts),
            "source": self._source,
            "metric": None if value is None else self._metric,
            "score": value,
            "bytes": weight_bytes,
        }

    def compare(self, model: bytes) -> LogitCheck:
        """Differences of a serialised graph to PyTorch, on the CPU with as many threads as torch uses."""
        logits = OnnxClassifier(session(model, torch.get_num_threads()), self._classifier).predict(self._texts)
        difference = (logits - self._logits).abs()
        return {
            "logit_difference": {"max": float(difference.max()), "mean": float(difference.mean())},
            "same_class": None if self._target.regression else self._agreement(logits),
            "score": self._score(logits),
        }

    def rounding(self) -> float:
        """The largest difference between PyTorch's logits in float32 and in float64."""
        exact = replace(self._classifier, model=copy.deepcopy(self._classifier.model).double())
        return float((exact.predict(self._texts) - self._logits).abs().max())

    def _agreement(self, logits: Tensor) -> float:
        predict = self._target.predictions
        return float(self._target.same(predict(logits.numpy()), predict(self._logits.numpy())).mean())

    def _score(self, logits: Tensor) -> float | None:
        if not self._labels or None in self._labels:
            return None
        return score(self._metric, self._target, logits.numpy(), self._labels)


def random_texts(classifier: Classifier) -> list[Pair]:
    """Texts of random tokens, the same ones at each call."""
    rng = np.random.default_rng(0)
    vocabulary = len(classifier.tokenizer)
    lengths = rng.integers(1, min(classifier.max_length, 64), size=RANDOM_TEXTS)
    rows = [rng.integers(0, vocabulary, size=length).tolist() for length in lengths]
    return [(classifier.tokenizer.decode(ids, skip_special_tokens=True), None) for ids in rows]
