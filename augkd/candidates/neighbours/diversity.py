"""Which of the usable neighbours are taken: not the same thing twice, for one example or over all of them.

Maximal marginal relevance (Carbonell & Goldstein 1998, "The Use of MMR") trades likeness to the query for unlikeness to
what was already picked. Uniqueness gives a corpus text to one example only; hub texts, which are near to everything,
would otherwise be labelled once and trained on a hundred times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

POOL = 4  # times as many usable neighbours are looked at as are wanted, where there is a choice to make


def mmr(
    relevance: NDArray[np.float32],  # (m,) cosine to the query
    likeness: NDArray[np.float32],  # (m, m) cosines among the candidates
    keep: int,
    diversity: float,
) -> list[int]:
    """Positions of `keep` candidates in the order picked; the first of equals.

    Each pick maximises (1 - diversity) x relevance - diversity x the highest likeness to a pick before it. 0 keeps the
    order of relevance; 1 looks at the picks only, after the first.
    """
    picked: list[int] = []
    value = (1 - diversity) * relevance.astype(np.float64)
    nearest_pick = np.zeros(len(relevance))
    open_ = np.ones(len(relevance), dtype=bool)
    for _ in range(min(keep, len(relevance))):
        worth = np.where(open_, value - diversity * nearest_pick, -np.inf)
        best = int(worth.argmax()) if picked else int(relevance.argmax())
        nearest_pick = np.maximum(nearest_pick, likeness[best]) if picked else likeness[best].astype(np.float64)
        open_[best] = False
        picked.append(best)
    return picked


def one_owner_each(
    scores: Sequence[NDArray[np.float32]],  # for each query the scores of its candidates, best first
    keys: Sequence[Sequence[tuple[str, ...]]],  # for each query the texts its candidates are made of
    rows: Sequence[int],  # for each query the example that owns its candidates
    room: Sequence[int],  # for each query how many it may keep
    taken: dict[str, int],  # text -> example; filled here
) -> list[list[int]]:
    """Positions of the candidates each query keeps, so that no text has two owners.

    From the best score of all downwards, a candidate is kept when its query has room and none of its texts belongs to
    another example: a text goes to the best-scoring example that can use it. Ties: first in order.
    """
    flat = np.concatenate([np.asarray(row, dtype=np.float64) for row in scores]) if scores else np.zeros(0)
    query_of = np.repeat(np.arange(len(scores)), [len(row) for row in scores])
    place_of = np.concatenate([np.arange(len(row)) for row in scores]) if scores else np.zeros(0, dtype=np.int64)
    kept: list[list[int]] = [[] for _ in scores]
    for entry in np.argsort(-flat, kind="stable").tolist():
        query, place = int(query_of[entry]), int(place_of[entry])
        texts = keys[query][place]
        owner = rows[query]
        if len(kept[query]) < room[query] and all(taken.get(text, owner) == owner for text in texts):
            kept[query].append(place)
            taken.update(dict.fromkeys(texts, owner))
    return kept
