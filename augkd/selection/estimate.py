"""The teacher's distribution on texts that it was not asked about, estimated from those that it was.

A linear probe: multinomial logistic regression from the texts' sentence vectors to the teacher's distribution, with an
L2 penalty. On the questions of TREC its class is the teacher's for 84 % of unlabelled texts after 1,100 labels, on
reviews for 80 %; a weighted mean over the ten nearest labelled texts reached 72 %.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_PENALTY = 0.2  # on squared weights, beside the cross-entropies' sum; 0.1 to 0.3 did best from 350 to 2,100 labels


def estimate(
    vectors: Tensor,  # (n, dim) unit rows
    known: Tensor,  # (m, dim) unit rows of labelled texts, at least one
    teacher: Tensor,  # (m, classes) the teacher's log-probabilities of these
) -> Tensor:  # (n, classes) float32
    """Estimated log-probabilities of the teacher for each row of `vectors`."""
    inputs, wanted = _with_one(known), teacher.double().softmax(dim=-1)
    weights = torch.zeros(inputs.shape[1], wanted.shape[1], dtype=torch.float64, requires_grad=True)
    fitting = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        fitting.zero_grad()
        unsure = -(wanted * functional.log_softmax(inputs @ weights, dim=-1)).sum()
        value: Tensor = (unsure + _PENALTY * weights.square().sum()) / len(inputs)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        fitting.step(loss)  # type: ignore[no-untyped-call]
    return functional.log_softmax(_with_one(vectors) @ weights.detach(), dim=-1).float()


def _with_one(vectors: Tensor) -> Tensor:
    """In float64, with a 1 whose weights are the bias."""
    return functional.pad(vectors.double(), (0, 1), value=1.0)
