"""How good a classifier is on a task's validation and test texts.

The validation split chooses checkpoints and is scored often; the test split is scored once, when every choice is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from augkd.data.target import Target
from augkd.data.task import Texts, texts_of
from augkd.errors import TrainingError, short_repr
from augkd.evaluation.metrics import interval, score
from augkd.evaluation.results import ScoreOnTest
from augkd.evaluation.thresholds import with_thresholds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.data.task import Example, Task


class Predictor(Protocol):
    """A classifier, or several whose outputs are averaged."""

    def predict(self, texts: Texts) -> Any:
        """Logits (n, outputs) of the texts, as a tensor."""


class Remembered:
    """A classifier that is done with training: what it predicted for a text is not computed again."""

    def __init__(self, classifier: Predictor):
        self._classifier = classifier
        self._outputs: dict[tuple[str, str | None], NDArray[np.float32]] = {}

    def predict(self, texts: Texts) -> Any:
        """As the classifier's."""
        import torch

        if not texts:
            return self._classifier.predict(texts)
        if new := [text for text in dict.fromkeys(texts) if text not in self._outputs]:
            self._outputs |= zip(new, self._classifier.predict(new).numpy(), strict=True)
        return torch.from_numpy(np.stack([self._outputs[text] for text in texts]))


@dataclass(frozen=True)
class Judge:
    """Scores classifiers on one task with one metric."""

    task: Task
    metric: str
    target: Target
    teacher_logits: Callable[[Texts], NDArray[np.float32]]  # (n, outputs); asked where validation texts have no labels

    def validation(self, classifier: Predictor) -> float:
        """The metric on the labelled validation texts; if there are none, against the teacher's predictions.

        Of several labels it is that of the best thresholds for these texts, which are chosen on them.
        """
        logits, labels = self._on_validation(classifier)
        return score(self.metric, with_thresholds(self.target, self.metric, logits, labels), logits, labels)

    def fitted(self, classifier: Predictor) -> Target:
        """The target with the classifier's own thresholds, chosen on validation, where several labels need them."""
        if self.target.activation != "sigmoid":
            return self.target
        return with_thresholds(self.target, self.metric, *self._on_validation(classifier))

    def _on_validation(self, classifier: Predictor) -> tuple[NDArray[np.float32], Any]:
        """Logits and labels of the labelled validation texts; if there are none, the teacher's predictions."""
        examples = [example for example in self.task.validation if example.label is not None]
        labels: Any = [example.label for example in examples]
        if not examples:
            outputs = self.teacher_logits(texts_of(self.task.validation))
            known = np.asarray(~np.isnan(outputs).any(axis=1))  # a teacher that is asked may refuse
            examples = [example for example, has in zip(self.task.validation, known, strict=True) if has]
            labels = self.target.predictions(outputs[known])
        return _outputs(classifier, examples), labels

    def test(self, classifier: Predictor) -> ScoreOnTest:
        """The metric on the test texts with its 95 % interval; None for both where labels are missing."""
        labels = [example.label for example in self.task.test]
        if None in labels:
            return {"test": None, "test_interval": None}
        target, logits = self.fitted(classifier), _outputs(classifier, self.task.test)
        return {
            "test": score(self.metric, target, logits, labels),
            "test_interval": interval(self.metric, target, logits, labels),
        }


def _outputs(classifier: Predictor, examples: Sequence[Example]) -> NDArray[np.float32]:  # (n, outputs)
    """Its logits; raises TrainingError where one is not finite, since a metric of nan is that of a class at random."""
    logits = classifier.predict(texts_of(examples)).numpy()
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        text = short_repr(examples[int(finite.argmin())].text)
        raise TrainingError(
            f"the model's outputs are not finite for {(~finite).sum()} of {len(logits)} texts, first {text}; "
            "its training diverged: lower the learning rate"
        )
    return np.asarray(logits)
