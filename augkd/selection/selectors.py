"""Which candidates of each original the student is trained on.

Every selector returns distinct pool positions, at most `keep` per owner. Selectors differ in the key they sort by and
in nothing else, so comparing two of them compares the choice alone. `minimax` is from Kamalloo et al. 2021; `random` is
the control that it has to beat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Protocol

import torch
from torch import Tensor

from augkd.selection.pool import Pool


class Draws(Protocol):
    """Random numbers of a batch's originals, the same in every epoch (`models.seeds.RowRandom`).

    Those of one original do not depend on the others.
    """

    def uniform(self, row: Tensor) -> Tensor:
        """A number in [0, 1) for each element of `row` (n,), from the stream of that original."""
        ...


def minimax(
    divergence: Tensor,
    pool: Pool,
    rng: Draws,
    epoch: int,
    *,
    keep: Annotated[int, ">= 1"] = 4,
    of: Annotated[int, ">= 0"] = 0,  # 0: all; else `pool` has so many of each owner, which `in_turn` took
) -> Tensor:  # (kept,) pool positions
    """The `keep` candidates of each owner on which teacher and student diverge most (Kamalloo et al. 2021, eq. 4)."""
    return best(-divergence, pool.owner, keep)


def random(
    divergence: Tensor, pool: Pool, rng: Draws, epoch: int, *, keep: Annotated[int, ">= 1"] = 4
) -> Tensor:  # (kept,) pool positions
    """`keep` candidates of each owner in random order, all of them once before any comes again: the control."""
    return in_turn(pool, rng, epoch, keep)


def nearest(
    divergence: Tensor, pool: Pool, rng: Draws, epoch: int, *, keep: Annotated[int, ">= 1"] = 4
) -> Tensor:  # (kept,) pool positions
    """The `keep` candidates of each owner that their source scores highest: the closest neighbours."""
    return best(-pool.score, pool.owner, keep)


def everything(divergence: Tensor, pool: Pool, rng: Draws, epoch: int) -> Tensor:  # (n,) pool positions
    """All candidates: vanilla-kNN augmentation."""
    return torch.arange(len(pool))


def in_turn(pool: Pool, rng: Draws, epoch: int, count: int) -> Tensor:  # (kept,) pool positions, ascending
    """`count` candidates of each owner at random; over the epochs, all of them come once before any comes again."""
    place = ranks(rng.uniform(pool.owner), pool.owner)  # in an order that is the same in every epoch
    size = torch.bincount(pool.owner)[pool.owner]
    return ((place - epoch * count) % size < count).nonzero().flatten()


Selector = Callable[..., Tensor]
SELECTORS: dict[str, Selector] = {
    "minimax": minimax,
    "random": random,
    "nearest": nearest,
    "everything": everything,
}
SCORED = frozenset({"minimax"})  # rank by divergence; for the others no candidate is forwarded to be scored


def best(key: Tensor, owner: Tensor, keep: int) -> Tensor:  # key, owner: (n,) → (kept,)
    """Positions of the `keep` smallest keys of each owner, ascending; ties go to the earlier position."""
    return (ranks(key, owner) < keep).nonzero().flatten()


def ranks(key: Tensor, owner: Tensor) -> Tensor:  # key, owner: (n,) → (n,)
    """The rank of each key among those of its owner, from 0 for the smallest; ties go to the earlier position."""
    order = key.argsort(stable=True)  # stable twice: ties keep retrieval order, so runs repeat
    order = order[owner[order].argsort(stable=True)]
    grouped = owner[order]
    starts = torch.ones(len(order), dtype=torch.bool)
    starts[1:] = grouped[1:] != grouped[:-1]
    first = torch.arange(len(order))[starts]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - first[starts.cumsum(0) - 1]
    return rank
