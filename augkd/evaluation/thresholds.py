"""Per-label thresholds: above which probability a text gets a label, chosen on the validation split.

At 0.5 a rare label is hardly ever predicted, so the thresholds that give the best F1 are chosen (SCut; Yang 2001).
Their optimum is exact. For the micro F1 of all labels it is found by Dinkelbach's method: at the best value F, the
thresholds maximise 2·TP - F·(predictions + positives), which is a sum over labels, so each is chosen on its own, and F
follows from them. For the macro F1, and for mAP, which no threshold changes, each label has its own F1 and its own F.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.data.target import Target

_ROUNDS = 50  # Dinkelbach's method needs about five


def with_thresholds(
    target: Target,
    metric: str,
    logits: NDArray[Any],  # (n, outputs)
    labels: Sequence[Any] | NDArray[Any],  # (n,) none missing
) -> Target:
    """The target with the thresholds that maximise `metric` on these texts; only several labels have any."""
    if target.activation != "sigmoid" or not len(logits):
        return target
    cuts = [_Cuts.of(column, real > 0) for column, real in zip(logits.T, target.encoded(labels).T, strict=True)]
    chosen = _best(cuts) if metric == "micro_f1" else [_best([cut])[0] for cut in cuts]
    return replace(target, thresholds=tuple(round(float(1 / (1 + np.exp(-value))), 6) for value in chosen))


class _Cuts:
    """The thresholds of one label that differ in what they predict, with their true positives and predictions."""

    def __init__(self, value: NDArray[Any], hits: NDArray[Any], predicted: NDArray[Any], positives: int):
        self.value, self.hits, self.predicted, self.positives = value, hits, predicted, positives

    @classmethod
    def of(cls, logits: NDArray[Any], real: NDArray[np.bool_]) -> _Cuts:  # (n,), (n,)
        order = np.argsort(-logits, kind="stable")
        ranked, hits = logits[order].astype(np.float64), np.concatenate([[0], np.cumsum(real[order])])
        # a cut of k predictions lies between the k-th and the next logit, half way, and exists where they differ
        borders = np.concatenate([[ranked[0] + 1], ranked, [ranked[-1] - 1]])
        exists = borders[:-1] > borders[1:]
        predicted = np.arange(len(ranked) + 1)[exists]
        value = ((borders[:-1] + borders[1:]) / 2)[exists]
        if 0 not in np.sign(value):  # 0.5 itself, in place of the cut that predicts the same
            value[predicted == (ranked > 0).sum()] = 0.0
        return cls(np.clip(value, -13, 13), hits[exists], predicted, int(real.sum()))

    def best(self, f: float) -> int:
        """The cut that maximises 2·TP - f·predictions; of equals the one nearest to 0.5."""
        gain = 2 * self.hits - f * self.predicted
        return int(min(np.flatnonzero(gain >= gain.max() - 1e-12), key=lambda place: abs(self.value[place])))


def _best(cuts: Sequence[_Cuts]) -> list[float]:
    """The thresholds, as logits, with the largest F1 over all decisions of these labels."""
    f, chosen = 0.0, [0] * len(cuts)
    for _ in range(_ROUNDS):
        chosen = [cut.best(f) for cut in cuts]
        hits = sum(float(cut.hits[place]) for cut, place in zip(cuts, chosen, strict=True))
        total = sum(float(cut.predicted[place] + cut.positives) for cut, place in zip(cuts, chosen, strict=True))
        reached = 2 * hits / total if total else 0.0
        if reached <= f + 1e-12:
            break
        f = reached
    return [float(cut.value[place]) for cut, place in zip(cuts, chosen, strict=True)]
