"""Which unlabelled texts the teacher is asked about next, before it is asked.

Every selector orders the pool, best first, and knows no teacher's output for it: the teacher's distribution is an
estimate from the labelled texts (`estimate.py`). What is then taken skips near-duplicates (`spread`), so
selectors differ in the order and in nothing else. `random` is the control that they have to beat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from augkd.selection.divergence import kl

_BLOCK = 256  # texts compared with those taken at once


@dataclass(frozen=True)
class Unlabelled:
    """Texts that the teacher could be asked about."""

    student: Tensor  # (n, classes) logits of the current student
    estimate: Tensor  # (n, classes) estimated log-probabilities of the teacher

    def __len__(self) -> int:
        return len(self.student)


def random(pool: Unlabelled, rng: torch.Generator) -> Tensor:  # (n,) positions, best first
    """In random order: the control for other selectors, which needs no student."""
    return torch.randperm(len(pool), generator=rng)


def entropy(pool: Unlabelled, rng: torch.Generator) -> Tensor:  # (n,) positions, best first
    """The texts whose class the student is least sure of, by the entropy of its distribution."""
    return _descending(entropy_of(pool.student))


def margin(pool: Unlabelled, rng: torch.Generator) -> Tensor:  # (n,) positions, best first
    """The texts on which the student's two most probable classes are closest (Scheffer et al. 2001)."""
    best = pool.student.float().softmax(dim=-1).topk(2, dim=-1).values
    return _descending(best[:, 1] - best[:, 0])


def predicted_divergence(
    pool: Unlabelled, rng: torch.Generator, *, temperature: Annotated[float, "> 0"] = 1.0
) -> Tensor:  # (n,) positions, best first
    """The texts on which the teacher's estimated distribution and the student's diverge most: minimax, foreseen."""
    return _descending(kl(pool.student, pool.estimate, temperature))


def confidence_uncertainty(pool: Unlabelled, rng: torch.Generator) -> Tensor:  # (n,) positions, best first
    """The texts of which the teacher is probably sure and the student is not (LLKD, Li et al. 2025)."""
    confidence = pool.estimate.float().softmax(dim=-1).max(dim=-1).values
    return _descending(confidence * entropy_of(pool.student))


def accept_reject(
    pool: Unlabelled, rng: torch.Generator, *, power: Annotated[float, "> 0"] = 1.0
) -> Tensor:  # (n,) positions, best first
    """Drawn at random, each accepted with the probability of the student's uncertainty (entropy ^ `power`; M-RARU)."""
    # Drawing and rejecting until all are accepted is drawing without replacement in proportion to the uncertainty,
    # which is the order of exponential waiting times with these rates.
    chance = entropy_of(pool.student).clamp_min(1e-12) ** power
    waiting = torch.empty(len(pool), dtype=torch.float64).exponential_(generator=rng) / chance.double()
    return waiting.argsort(stable=True)


LabelSelector = Callable[..., Tensor]
LABEL_SELECTORS: dict[str, LabelSelector] = {
    "random": random,
    "entropy": entropy,
    "margin": margin,
    "predicted_divergence": predicted_divergence,
    "confidence_uncertainty": confidence_uncertainty,
    "accept_reject": accept_reject,
}
NEEDS_STUDENT = frozenset(LABEL_SELECTORS) - {"random"}


def entropy_of(logits: Tensor) -> Tensor:  # (n, classes) → (n,)
    """Entropy of each row's distribution as a share of the largest possible, 0 to 1."""
    log_probabilities = functional.log_softmax(logits.float(), dim=-1)
    entropies = -(log_probabilities.exp() * log_probabilities).sum(dim=-1)
    return entropies / torch.log(torch.tensor(float(logits.shape[-1])))


def spread(
    order: Tensor,  # (n,) positions, best first
    vectors: Tensor,  # (n, dim) unit rows
    count: int,
    near: float,
) -> Tensor:  # (at most count,) positions
    """The first `count` positions in this order, without texts whose cosine to one taken before is at least `near`.

    1 turns this off but for equal texts.
    """
    near -= 1e-6  # the cosine of equal rows may be a rounding below 1
    taken: list[int] = []
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        own = vectors[block]
        close = (own @ own.T >= near).tril(-1)
        far = torch.ones(len(block), dtype=torch.bool)
        if taken:
            far = (own @ vectors[torch.tensor(taken)].T).max(dim=1).values < near
        kept: list[int] = []
        for row in far.nonzero().flatten().tolist():
            if len(taken) + len(kept) == count:
                break
            if not close[row, kept].any():
                kept.append(row)
        taken += block[kept].tolist()
        if len(taken) == count:
            break
    return torch.tensor(taken, dtype=torch.long)


def _descending(key: Tensor) -> Tensor:
    return (-key).argsort(stable=True)  # ties keep the pool's order, so runs repeat
