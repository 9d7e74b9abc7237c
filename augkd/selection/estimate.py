"""What the teacher would say of texts that it was not asked about, by the nearest texts that it was.

Its distributions on the k nearest labelled texts, with weights that fall by a factor e with each 0.1 of cosine. Knowing
nothing counts as one more neighbour, far away, so that a text without near neighbours gets no false confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_WIDTH = 0.1  # cosine over which a neighbour's weight falls to 1/e
_FAR = 0.3  # cosine at which a neighbour counts as much as knowing nothing
_BLOCK = 1024  # texts compared with the labelled ones at once: 16 MB with 4,000 of them


@dataclass(frozen=True)
class Estimate:
    """The teacher's outputs on n texts, as far as their neighbours tell."""

    mean: Tensor  # (n, classes) log-probabilities of the mean over the neighbours and, for knowing nothing, all texts
    near: Tensor  # (n, classes) mean distribution over the neighbours alone
    entropy: Tensor  # (n,) mean entropy of their distributions, in nats
    unknown: Tensor  # (n,) weight of knowing nothing, 0 to 1


def estimate(
    vectors: Tensor,  # (n, dim) unit rows
    known: Tensor,  # (m, dim) unit rows of labelled texts
    teacher: Tensor,  # (m, classes) the teacher's logits of these
    k: int,
) -> Estimate:
    """What is known of each row of `vectors`."""
    logs = teacher.float().log_softmax(dim=-1)
    probabilities = logs.exp()
    entropies = -(probabilities * logs).sum(dim=-1)
    far = torch.exp(torch.tensor((_FAR - 1) / _WIDTH))
    near, entropy, unknown = [], [], []
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        nearest = (block @ known.T).topk(min(k, len(known)), dim=1)
        weights = ((nearest.values - 1) / _WIDTH).exp()  # (block, k)
        total = weights.sum(dim=1, keepdim=True)
        weights = weights / total
        near.append((weights.unsqueeze(-1) * probabilities[nearest.indices]).sum(dim=1))
        entropy.append((weights * entropies[nearest.indices]).sum(dim=1))
        unknown.append((far / (total + far)).squeeze(1))
    share = torch.cat(unknown)
    nearby = torch.cat(near)
    mean = nearby + share.unsqueeze(1) * (probabilities.mean(dim=0) - nearby)
    return Estimate(mean.clamp_min(1e-9).log(), nearby, torch.cat(entropy), share)
