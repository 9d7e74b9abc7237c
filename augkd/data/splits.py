"""Which rows go where: seeded, stratified choices over row numbers, for splits that are missing and for quick runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from random import Random


def cut(
    strata: Sequence[Hashable | None],  # the class of each row; None: the row is never cut
    texts: Sequence[Hashable],  # rows of equal text move together
    parts: int,
    share: float,  # of each class, for each part
    seed: int,
) -> list[list[int]]:  # row numbers of each part, ascending
    """Disjoint held-out parts: `share` of every class, at least one text of it while one is left over for training."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        groups[text].append(row)
    by_class: dict[str, list[list[int]]] = defaultdict(list)
    for rows in groups.values():
        if all(strata[row] is not None for row in rows):
            by_class[str(strata[rows[0]])].append(rows)

    rng = Random(seed)
    chosen: list[list[int]] = [[] for _ in range(parts)]
    for _, left in sorted(by_class.items()):  # sorted: the order of rows in the file must not decide
        rng.shuffle(left)
        target = max(1, round(share * sum(map(len, left))))
        for part in chosen:
            taken = _take(left, target)
            part.extend(row for place in taken for row in left[place])
            left = [rows for place, rows in enumerate(left) if place not in taken]
    return [sorted(part) for part in chosen]


def _take(groups: list[list[int]], target: int) -> set[int]:
    """Places of the groups that fit into `target` rows; of the smallest one if none fits; always leaves one."""
    taken: set[int] = set()
    rows = 0
    for place, group in enumerate(groups):
        if len(taken) + 1 < len(groups) and rows + len(group) <= target:
            taken.add(place)
            rows += len(group)
    if taken or len(groups) < 2:
        return taken
    return {min(range(len(groups)), key=lambda place: len(groups[place]))}


def subsample(strata: Sequence[Hashable], size: int, seed: int) -> list[int]:
    """`size` row numbers, ascending, in the proportions of the classes; the first row of every class comes first."""
    rng = Random(seed)
    by_class: dict[str, list[int]] = defaultdict(list)
    for row, stratum in enumerate(strata):
        by_class[str(stratum)].append(row)
    ranked = []
    for name, rows in sorted(by_class.items()):
        rng.shuffle(rows)
        ranked += [((place + 0.5) / len(rows) if place else 0.0, name, row) for place, row in enumerate(rows)]
    return sorted(row for _, _, row in sorted(ranked)[:size])
