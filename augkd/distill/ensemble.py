"""Ensemble: several students as one predictor, the last option of born-again networks (Furlanello et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from augkd.models.classifier import Classifier, Pair
from augkd.selection.divergence import yes_no


def _mean_softmax(outputs: Tensor) -> Tensor:  # (members, n, classes) → (n, classes)
    return outputs.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(outputs))


def _mean_sigmoid(outputs: Tensor) -> Tensor:  # (members, n, labels) → (n, labels)
    no, yes = _mean_softmax(yes_no(outputs)).unbind(dim=-1)
    return yes - no


MEANS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": _mean_softmax,
    "sigmoid": _mean_sigmoid,
    "identity": lambda outputs: outputs.mean(dim=0),
}


class Ensemble:
    """Predicts with the average of its members, all of one task."""

    def __init__(self, members: Sequence[Classifier]):
        self._members = list(members)

    def predict(self, texts: Sequence[Pair]) -> Tensor:  # (n, outputs)
        """Logits of the members' mean probabilities; for regression the mean of their outputs."""
        outputs = torch.stack([member.predict(texts) for member in self._members])
        return MEANS[self._members[0].target.activation](outputs)
