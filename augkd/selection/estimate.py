"""The teacher's distribution on texts that it was not asked about, estimated from the nearest that it was.

A weighted mean over the k nearest labelled texts, whose weights fall by a factor e with each 0.1 of cosine. The mean
over all labelled texts counts as one more neighbour, far away, so that a text without near neighbours gets what is
known of any text and no false confidence.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WIDTH = 0.1  # cosine over which a neighbour's weight falls to 1/e
_FAR = 0.3  # cosine at which a neighbour counts as much as the mean of all texts
_BLOCK = 1024  # texts compared with the labelled ones at once: 16 MB with 4,000 of them


def estimate(
    vectors: Tensor,  # (n, dim) unit rows
    known: Tensor,  # (m, dim) unit rows of labelled texts
    teacher: Tensor,  # (m, classes) the teacher's log-probabilities of these
    k: int,
) -> Tensor:  # (n, classes)
    """Estimated log-probabilities of the teacher for each row of `vectors`."""
    probabilities = teacher.float().softmax(dim=-1)
    prior = probabilities.mean(dim=0)
    far = torch.exp(torch.tensor((_FAR - 1) / _WIDTH))
    pieces = []
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        nearest = (block @ known.T).topk(min(k, len(known)), dim=1)
        weights = ((nearest.values - 1) / _WIDTH).exp()  # (block, k)
        total = (weights.unsqueeze(-1) * probabilities[nearest.indices]).sum(dim=1) + far * prior
        pieces.append(total / (weights.sum(dim=1, keepdim=True) + far))
    return torch.cat(pieces).clamp_min(1e-9).log() if pieces else teacher.new_zeros(0, teacher.shape[1])
