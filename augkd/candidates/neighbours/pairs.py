"""Pairs made of neighbours: both sides of a pair replaced at once.

A neighbour of one side and a neighbour of the other rarely make a sensible pair: whatever relation two sentences had,
two strangers are mostly unrelated. So the two are chosen together, by how close each is to the side it replaces and by
how well the similarity between the sides is preserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def scores_by_cosine(
    first: NDArray[np.float32],  # (m,) cosines of neighbours to the first side
    second: NDArray[np.float32],  # (n,) cosines of neighbours to the second side
    between: NDArray[np.float32],  # (m, n) cosines of the former to the latter
    relation: float,  # cosine of the first side to the second
) -> NDArray[np.float64]:  # (m, n)
    """A score for each combination: the sum of both cosines, less the change of the cosine between the sides."""
    return np.asarray(first[:, None] + second[None, :] - np.abs(between - relation), dtype=np.float64)


def scores_by_rank(first: int, second: int) -> NDArray[np.float64]:  # (first, second)
    """The score of combinations where search scores have no scale (BM25): minus the sum of the two ranks."""
    return -np.add.outer(np.arange(first, dtype=np.float64), np.arange(second, dtype=np.float64))


def best_combinations(
    scores: NDArray[np.float64],  # (m, n)
    first: Sequence[str],  # (m,) normalised texts
    second: Sequence[str],  # (n,)
    keep: int,
) -> list[tuple[int, int]]:
    """The combinations with the highest scores, no text twice on its side and none with itself; the first of equals."""
    used_first: set[int] = set()
    used_second: set[int] = set()
    chosen: list[tuple[int, int]] = []
    for place in np.argsort(-scores, axis=None, kind="stable").tolist():
        if len(chosen) == keep:
            break
        a, b = divmod(place, scores.shape[1])
        if a in used_first or b in used_second or first[a] == second[b]:
            continue
        used_first.add(a)
        used_second.add(b)
        chosen.append((a, b))
    return chosen
