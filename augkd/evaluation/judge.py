"""How good a classifier is on a task's validation and test texts.

Validation chooses checkpoints and is asked often; the test split is looked at once, by whoever reports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from augkd.data.task import Texts, texts_of
from augkd.evaluation.metrics import interval, score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augkd.data.task import Task


class Predictor(Protocol):
    """Whatever gives (n, outputs) logits of texts as a tensor."""

    def predict(self, texts: Texts) -> Any:
        """The logits."""


@dataclass(frozen=True)
class Judge:
    """One task's validation and test texts, and the metric."""

    task: Task
    metric: str
    regression: bool
    believed: Callable[[Texts], NDArray[np.float32]]  # the teacher's logits, for a task without labels

    def validation(self, classifier: Predictor) -> float:
        """The metric on the labelled validation texts; without any, against the teacher's own predictions."""
        examples = [example for example in self.task.validation if example.label is not None]
        if examples:
            labels: list[Any] = [example.label for example in examples]
        else:
            examples = list(self.task.validation)
            believed = self.believed(texts_of(examples))
            labels = list(believed[:, 0] if self.regression else believed.argmax(axis=1))
        return score(self.metric, classifier.predict(texts_of(examples)).numpy(), labels)

    def test(self, classifier: Predictor) -> dict[str, Any]:
        """The metric on the test texts with its 95 % interval; None for both where labels are missing."""
        labels = [example.label for example in self.task.test]
        if None in labels:
            return {"test": None, "test_interval": None}
        logits = classifier.predict(texts_of(self.task.test)).numpy()
        return {
            "test": score(self.metric, logits, labels),
            "test_interval": interval(self.metric, logits, labels),
        }
