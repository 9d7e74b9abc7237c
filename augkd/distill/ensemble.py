"""Ensemble: several students as one predictor, the last option of born-again networks (Furlanello et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from augkd.models.classifier import Classifier, Pair


class Ensemble:
    """Predicts with the average of its members, all of one task."""

    def __init__(self, members: Sequence[Classifier]):
        self._members = list(members)

    def predict(self, texts: Sequence[Pair]) -> Tensor:  # (n, outputs)
        """Logarithms of the members' mean probabilities; for regression the mean of their outputs."""
        outputs = torch.stack([member.predict(texts) for member in self._members])
        if not self._members[0].labels:
            return outputs.mean(dim=0)
        return outputs.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(self._members))
