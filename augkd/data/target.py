"""What a task predicts: one of several classes, any number of several labels, or a number.

Everything that depends on it is here: the number of outputs of a model and what they mean, labels as arrays and the
value of a missing label, what a row of logits predicts and how sure it is, which metrics apply. Code elsewhere asks a
`Target` and never looks at the number of labels or at its kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

NO_CLASS = -100  # PyTorch's ignore_index: a class label that is missing
CLASSIFICATION_METRICS = ("accuracy", "f1", "matthews")
MULTI_LABEL_METRICS = ("micro_f1", "macro_f1", "mAP")
REGRESSION_METRICS = ("pearson", "spearman")

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]  # as transformers'
Activation = Literal["softmax", "sigmoid", "identity"]
_ACTIVATIONS: dict[ProblemType, Activation] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "identity",
}


@dataclass(frozen=True)
class Target:
    """One of `labels`, in the order of a model's outputs, or with `multi_label` any of them; a number without labels.

    `thresholds` are the probabilities above which each of several labels is predicted; () is 0.5 for all.
    """

    labels: tuple[str, ...] = ()
    multi_label: bool = False
    thresholds: tuple[float, ...] = ()

    @classmethod
    def of(cls, labels: Target | Sequence[str]) -> Target:
        """A target as it is; class names as the target of one class per text."""
        return labels if isinstance(labels, Target) else cls(tuple(labels))

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Target:
        """The target of a saved model, from its configuration; a single output is a number."""
        id2label = config.get("id2label") or {}
        names = tuple(str(name) for _, name in sorted(id2label.items(), key=lambda item: int(item[0])))
        if len(names) < 2:
            return cls()
        multi_label = config.get("problem_type") == "multi_label_classification"
        chosen = (config.get("thresholds") or {}) if multi_label else {}
        return cls(names, multi_label, tuple(float(chosen.get(name, 0.5)) for name in names) if chosen else ())

    @property
    def problem_type(self) -> ProblemType:
        """What `transformers` calls it."""
        if self.regression:
            return "regression"
        return "multi_label_classification" if self.multi_label else "single_label_classification"

    @property
    def activation(self) -> Activation:
        """What turns the outputs of a model into probabilities, or into the number."""
        return _ACTIVATIONS[self.problem_type]

    @property
    def regression(self) -> bool:
        """Whether a number is predicted."""
        return not self.labels

    @property
    def outputs(self) -> int:
        """Outputs of a model: one per class or label, or one number."""
        return len(self.labels) or 1

    @property
    def missing(self) -> float:
        """The value of a missing label: `NO_CLASS` among class indices, nan among numbers and several labels."""
        return np.nan if self.regression or self.multi_label else NO_CLASS

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that apply, the default first."""
        if self.multi_label:
            return MULTI_LABEL_METRICS
        return REGRESSION_METRICS if self.regression else CLASSIFICATION_METRICS

    def describe(self) -> str:
        """What is predicted, in a few words: `3 classes`, `28 labels, any number of them per text`, `a number`."""
        if self.multi_label:
            return f"{len(self.labels)} labels, any number of them per text"
        return f"{len(self.labels)} classes" if self.labels else "a number"

    # ---- labels ----

    def encode(self, values: Sequence[Any]) -> NDArray[Any]:  # (n,) int64 class indices or float32 numbers; (n, labels)
        """Labels as an array; a value is a class name, a class index, a number, or None where it is missing.

        Of several labels a value is a list of names or indices, and the array has a row of float32 0 and 1 for each.
        """
        if self.regression:
            return np.array([self.missing if value is None else float(value) for value in values], dtype=np.float32)
        index_of = {label: index for index, label in enumerate(self.labels)}
        if self.multi_label:
            rows = np.zeros((len(values), self.outputs), dtype=np.float32)
            for row, value in zip(rows, values, strict=True):
                row[:] = self.missing if value is None else 0
                row[[int(index_of.get(one, one)) for one in value or ()]] = 1
            return rows
        indices = [NO_CLASS if value is None else index_of.get(value, value) for value in values]
        return np.array([int(index) for index in indices], dtype=np.int64)

    def encoded(self, values: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
        """Labels as an array, those that are one as they are."""
        return values if isinstance(values, np.ndarray) else self.encode(values)

    def decode(self, value: Any) -> Any:
        """The class name of an index, the names of several; a number, or None, as it is."""
        if self.regression or value is None:
            return value
        return [self.labels[place] for place in value] if self.multi_label else self.labels[int(value)]

    def decoded(self, predicted: Any) -> Any:  # one row of `predictions`
        """A prediction by name: the class, or the list of labels; a number as it is."""
        return self.decode(np.flatnonzero(predicted).tolist() if self.multi_label else predicted)

    def strata(self, values: Sequence[Any]) -> list[Hashable | None]:
        """What a stratified choice of examples keeps the proportions of: the class; all numbers are one stratum.

        Of several labels it is the rarest one, so that a rare label is not left to chance; a text with none of them is
        in a stratum of its own. None where the label is missing.
        """
        if self.regression:
            return [0] * len(values)
        if not self.multi_label:
            return list(values)
        counts = Counter(label for value in values for label in value or ())
        return [
            None if value is None else min(value, key=lambda one: (counts[one], one), default=-1) for value in values
        ]

    def counts(self, values: Sequence[Any]) -> dict[str, int]:
        """How many texts have each class or label, largest first, from names or indices; {} for numbers."""
        if self.regression:
            return {}
        known = [value for value in values if value is not None]
        found = Counter(one for value in known for one in (value if self.multi_label else (value,)))
        return {one if isinstance(one, str) else self.labels[int(one)]: n for one, n in found.most_common()}

    # ---- outputs ----

    def predictions(self, logits: NDArray[Any]) -> NDArray[Any]:  # (n, outputs) → (n,), or (n, labels) of 0 and 1
        """The prediction of each row of logits: the index of the largest, the number itself, or each label or not."""
        if self.multi_label:
            return np.asarray(self.judged(logits) > 0).astype(np.int64)
        return np.asarray(logits[:, 0] if self.regression else logits.argmax(axis=1))

    def predicted_names(self, logits: NDArray[Any]) -> list[dict[str, float]]:  # (n, outputs) → (n,)
        """The class or labels that each row of logits predicts, by name, with their probabilities; {} for numbers."""
        if self.regression:
            return [{} for _ in logits]
        predicted, probabilities = self.predictions(logits), self.probabilities(logits)
        places = [np.flatnonzero(row) if self.multi_label else [row] for row in predicted]
        return [
            {self.labels[int(place)]: float(row[place]) for place in chosen}
            for chosen, row in zip(places, probabilities, strict=True)
        ]

    @property
    def answers(self) -> tuple[str, ...]:
        """Every possible prediction by name, in the order of the outputs; () where there are too many to list."""
        return () if self.multi_label else self.labels

    def named(self, predicted: NDArray[Any]) -> list[str]:  # (n,) or (n, labels) → (n,)
        """Predictions, or labels as an array, in words: the class, or the labels with commas between them."""
        if not self.multi_label:
            return [self.labels[int(place)] if self.labels else f"{place:g}" for place in predicted]
        return [", ".join(self.labels[int(place)] for place in np.flatnonzero(row)) or "(none)" for row in predicted]

    def judged(self, logits: NDArray[Any]) -> NDArray[Any]:  # (n, outputs) → (n,), or (n, labels)
        """What a metric compares with labels: predictions; of several labels the logits less those of the thresholds.

        Such a value is above 0 where the label is predicted, and ranks the texts of a label as its probability does.
        """
        if not self.multi_label:
            return self.predictions(logits)
        if not self.thresholds:
            return np.asarray(logits)
        limits = np.array(self.thresholds, dtype=np.float64)
        return np.asarray(logits - np.log(limits / (1 - limits)), dtype=np.float32)

    def probabilities(self, logits: NDArray[Any]) -> NDArray[np.float64]:  # (n, outputs) → (n, outputs)
        """The probability of each class or label; a number as it is."""
        values = np.asarray(logits, dtype=np.float64)
        if self.regression:
            return values
        if self.multi_label:
            return np.asarray(np.exp(-np.logaddexp(0, -values)))
        exponentials = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def confidence(
        self, logits: NDArray[Any], temperature: float = 1.0
    ) -> NDArray[np.float64]:  # (n, outputs) → (n,); nan for numbers
        """The probability of the prediction; of several labels that all are right, as if they were independent.

        `temperature` divides the logits of the probabilities, and leaves the prediction as it is.
        """
        if self.regression:
            return np.full(len(logits), np.nan)
        probabilities = self.probabilities(np.asarray(logits, dtype=np.float64) / temperature)
        if not self.multi_label:
            return np.asarray(probabilities.max(axis=1, initial=0.0))
        chosen = self.predictions(logits) == 1
        return np.asarray(np.where(chosen, probabilities, 1 - probabilities).prod(axis=1))

    def agreement(self, predicted: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:  # (n,)
        """1 where both are the same class, else 0; of several labels the share that both have of those that one has.

        That is the Jaccard index, 1 where neither has any. Numbers: 1 where they are equal.
        """
        if not self.multi_label:
            return np.asarray(predicted == other, dtype=np.float64)
        both = ((predicted == 1) & (other == 1)).sum(axis=1)
        either = ((predicted == 1) | (other == 1)).sum(axis=1)
        return np.where(either == 0, 1.0, both / np.maximum(either, 1))

    def same(self, predicted: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:  # (n,)
        """Whether both predict the same: the class, the number, or all of the labels."""
        return np.asarray((predicted == other).all(axis=1) if self.multi_label else predicted == other)

    def members(self, predicted: NDArray[Any]) -> NDArray[np.bool_]:  # (n,) or (n, labels) → (n, labels)
        """Which texts have each class or label."""
        return np.asarray(predicted == 1 if self.multi_label else predicted[:, None] == np.arange(len(self.labels)))

    def distance(self, one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:  # (n, outputs) logits → (n,)
        """How far two outputs are apart: the probability that moved from one class to others (total variation).

        Of several labels it is the largest change of a label's probability, of a number the absolute difference.
        """
        difference = np.abs(self.probabilities(one) - self.probabilities(other))
        if self.regression:
            return np.asarray(difference[:, 0])
        return np.asarray(difference.max(axis=1, initial=0.0) if self.multi_label else difference.sum(axis=1) / 2)

    def logits_of(self, probabilities: NDArray[Any]) -> NDArray[Any]:  # (n, outputs) → (n, outputs)
        """Logits that give these probabilities back."""
        kept = np.clip(probabilities, 1e-9, None)  # 1e-9 keeps the logarithm finite
        if self.multi_label:
            return np.asarray(
                np.log(kept) - np.log(np.clip(1 - np.asarray(probabilities, dtype=np.float64), 1e-9, None))
            )
        return np.asarray(probabilities if self.regression else np.log(kept))


def present(labels: NDArray[Any]) -> NDArray[np.bool_]:  # (n,) or (n, labels), as `Target.encode` gives them
    """Which labels are not missing."""
    missing = np.isnan(labels) if labels.dtype.kind == "f" else labels == NO_CLASS
    return np.asarray(~(missing.any(axis=1) if missing.ndim == 2 else missing))
