"""Seeded, stratified choices of row numbers: splits cut from train, and subsamples for quick runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from random import Random


def cut(
    strata: Sequence[Hashable | None],  # the class of each row; None: the row stays in train
    texts: Sequence[Hashable],  # rows of equal text move together
    parts: int,
    share: float,  # of each class, for each part
    seed: int,
) -> list[list[int]]:  # row numbers of each part, ascending
    """Disjoint held-out parts with `share` of every class: at least one text, as long as one is left for training."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        groups[text].append(row)
    by_class: dict[str, list[list[int]]] = defaultdict(list)
    for rows in groups.values():
        if all(strata[row] is not None for row in rows):
            by_class[str(strata[rows[0]])].append(rows)

    rng = Random(seed)
    chosen: list[list[int]] = [[] for _ in range(parts)]
    for _, left in sorted(by_class.items()):  # sorted: the result must not depend on the order of the file
        rng.shuffle(left)
        target = max(1, round(share * sum(map(len, left))))
        for part in chosen:
            taken = _take(left, target)
            part.extend(row for index in taken for row in left[index])
            left = [rows for index, rows in enumerate(left) if index not in taken]
    return [sorted(part) for part in chosen]


def _take(groups: list[list[int]], target: int) -> set[int]:
    """Indices of the groups that fit into `target` rows, else of the smallest group; always leaves one group."""
    taken: set[int] = set()
    rows = 0
    for index, group in enumerate(groups):
        if len(taken) + 1 < len(groups) and rows + len(group) <= target:
            taken.add(index)
            rows += len(group)
    if taken or len(groups) < 2:
        return taken
    return {min(range(len(groups)), key=lambda index: len(groups[index]))}


def subsample(strata: Sequence[Hashable], size: int, seed: int) -> list[int]:
    """`size` row numbers, ascending, in the proportions of the classes, with one row of each class if there is room."""
    rng = Random(seed)
    by_class: dict[str, list[int]] = defaultdict(list)
    for row, stratum in enumerate(strata):
        by_class[str(stratum)].append(row)
    ranked = []
    for name, rows in sorted(by_class.items()):
        rng.shuffle(rows)
        ranked += [((rank + 0.5) / len(rows) if rank else 0.0, name, row) for rank, row in enumerate(rows)]
    return sorted(row for _, _, row in sorted(ranked)[:size])
