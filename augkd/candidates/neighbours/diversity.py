"""Which of the usable neighbours are kept, so that no text comes twice: for one example, or over all examples.

Maximal marginal relevance (Carbonell & Goldstein 1998, "The Use of MMR") trades similarity to the query for
dissimilarity to what was already picked. Uniqueness gives a corpus text to one example only; hub texts, which are close
to everything, would otherwise be labelled once and trained on a hundred times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERSAMPLING = 4  # usable neighbours searched for each one wanted, where there is a choice to make


def mmr(
    relevance: NDArray[np.float32],  # (m,) cosine to the query
    similarity: NDArray[np.float32],  # (m, m) cosines among the candidates
    keep: int,
    diversity: float,
) -> list[int]:
    """Positions of `keep` candidates in the order picked; the first of equals.

    Each pick maximises (1 - diversity) x relevance - diversity x the highest similarity to an earlier pick. 0 keeps the
    order of relevance; 1 considers the earlier picks only, after the first.
    """
    picked: list[int] = []
    weighted = (1 - diversity) * relevance.astype(np.float64)
    nearest_pick = np.zeros(len(relevance))
    available = np.ones(len(relevance), dtype=bool)
    for _ in range(min(keep, len(relevance))):
        marginal = np.where(available, weighted - diversity * nearest_pick, -np.inf)
        best = int(marginal.argmax()) if picked else int(relevance.argmax())
        nearest_pick = np.maximum(nearest_pick, similarity[best]) if picked else similarity[best].astype(np.float64)
        available[best] = False
        picked.append(best)
    return picked


def assign_owners(
    scores: Sequence[NDArray[np.float32]],  # for each query the scores of its candidates, best first
    keys: Sequence[Sequence[tuple[str, ...]]],  # for each query the normalised texts of its candidates
    rows: Sequence[int],  # for each query the example that owns its candidates
    capacities: Sequence[int],  # for each query how many candidates it may keep
    owners: dict[str, int],  # normalised text -> example; filled here
) -> list[list[int]]:
    """Positions of the candidates each query keeps, so that no text has two owners.

    From the best score of all downwards, a candidate is kept if its query has room and none of its texts belongs to
    another example, so a text goes to the best-scoring example that can use it. Ties: first in order.
    """
    flat = np.concatenate([np.asarray(row, dtype=np.float64) for row in scores]) if scores else np.zeros(0)
    query_of = np.repeat(np.arange(len(scores)), [len(row) for row in scores])
    place_of = np.concatenate([np.arange(len(row)) for row in scores]) if scores else np.zeros(0, dtype=np.int64)
    kept: list[list[int]] = [[] for _ in scores]
    for entry in np.argsort(-flat, kind="stable").tolist():
        query, place = int(query_of[entry]), int(place_of[entry])
        texts = keys[query][place]
        owner = rows[query]
        if len(kept[query]) < capacities[query] and all(owners.get(text, owner) == owner for text in texts):
            kept[query].append(place)
            owners.update(dict.fromkeys(texts, owner))
    return kept
