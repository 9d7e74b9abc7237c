"""New pairs for old: both sides of a pair replaced at once.

A neighbour of one side and a neighbour of the other seldom make a pair of any kind: whatever two sentences were, two
strangers are mostly unrelated. So the two are chosen together, by how near each is to the side it replaces and by how
well the relation between the sides is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def joined_by_cosine(
    first: NDArray[np.float32],  # (m,) cosines of neighbours to the first side
    second: NDArray[np.float32],  # (n,) cosines of neighbours to the second side
    between: NDArray[np.float32],  # (m, n) cosines of the ones to the others
    relation: float,  # cosine of the first side to the second
) -> NDArray[np.float64]:  # (m, n)
    """What each combination is worth: both cosines, less what the cosine *between* the sides changes."""
    return np.asarray(first[:, None] + second[None, :] - np.abs(between - relation), dtype=np.float64)


def joined_by_rank(first: int, second: int) -> NDArray[np.float64]:  # (first, second)
    """The worth of combinations where scores have no scale (BM25): minus the sum of the two ranks."""
    return -np.add.outer(np.arange(first, dtype=np.float64), np.arange(second, dtype=np.float64))


def best_combinations(
    worth: NDArray[np.float64],  # (m, n)
    first: Sequence[str],  # (m,) folded texts
    second: Sequence[str],  # (n,)
    keep: int,
) -> list[tuple[int, int]]:
    """The most worthy combinations, no text twice on its side and none with itself; the first of equals."""
    taken_first: set[int] = set()
    taken_second: set[int] = set()
    chosen: list[tuple[int, int]] = []
    for place in np.argsort(-worth, axis=None, kind="stable").tolist():
        if len(chosen) == keep:
            break
        a, b = divmod(place, worth.shape[1])
        if a in taken_first or b in taken_second or first[a] == second[b]:
            continue
        taken_first.add(a)
        taken_second.add(b)
        chosen.append((a, b))
    return chosen
