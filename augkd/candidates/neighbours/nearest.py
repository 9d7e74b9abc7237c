"""The usable texts next to each query, or next to the mean of many.

What must never come back is decided by folded text, not by id or rank: the example itself, evaluation texts and their
near copies, and texts that differ from a nearer one in punctuation or case only. What that leaves short is asked for
again, deeper. The hits of an average are dealt to the examples it stands for: each text to the example most like it
that still has room (Du et al. 2021, SentAugment, whose label averages beat one query per sentence).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from augkd.candidates.neighbours.near_copies import Guard
from augkd.candidates.neighbours.queries import Query
from augkd.data.cleaning import normalised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.encoders.encoder import Encoder
    from augkd.retrieval.retriever import Hits, Retriever

DEEPEST = 256  # ranks looked at for one query, however many of them are withheld
_DEEPER = 4  # an average is searched to this many times what it has to deal out
_MARGIN = 8  # ranks asked for beyond those wanted, for the few that are withheld
_DEALT = 1024  # texts compared with the examples of an average at a time


@dataclass(frozen=True)
class Rules:
    """What may come back; `guard` counts what it refuses."""

    guard: Guard
    min_distance: float
    max_distance: float
    taken: Collection[str] = ()  # folded texts that have an owner

    def within(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which cosines lie within the bounds; rounding takes cosines past 1."""
        distance = np.clip(1 - scores, 0.0, 2.0)
        return np.asarray((self.min_distance <= distance) & (distance <= self.max_distance))


@dataclass(frozen=True)
class Ranked:
    """The usable texts of one query, best first."""

    query: Query
    ids: NDArray[np.int64]  # (m,)
    scores: NDArray[np.float32]  # (m,)
    keys: tuple[str, ...]  # (m,) folded texts
    vectors: NDArray[np.float32] | None  # (m, dim)


class _Texts:
    """Texts by id with their folds; each is read and folded once however many queries meet it."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._known: dict[int, tuple[str, str]] = {}

    def add(self, ids: NDArray[np.int64]) -> None:
        new = [id_ for id_ in np.unique(ids[ids >= 0]).tolist() if id_ not in self._known]
        for id_, text in zip(new, self._retriever.texts(new) if new else (), strict=True):
            self._known[id_] = (text, normalised(text))

    def __getitem__(self, id_: int) -> tuple[str, str]:
        return self._known[id_]


def nearest(
    queries: Sequence[Query], retriever: Retriever, rules: Rules, *, factor: int = 1, vectors: bool = False
) -> list[Ranked]:
    """The first `factor` x wanted usable texts of each query; twice as deep each round for those still short."""
    texts = _Texts(retriever)
    most = max((query.wanted for query in queries), default=0) * factor + _MARGIN
    limit = min(len(retriever), max(DEEPEST, most))
    depth = min(most, limit)
    answers: dict[int, Ranked] = {}
    short = list(range(len(queries)))
    while short:
        hits = retriever.search([queries[number].text for number in short], depth, vectors=vectors)
        texts.add(hits.ids)
        still_short = []
        for place, number in enumerate(short):
            wanted = queries[number].wanted * factor
            usable = _usable(hits, place, queries[number], wanted, texts, rules, retriever.bounded)
            answers[number] = usable
            if len(usable.ids) < wanted and not _exhausted(hits, place, rules, retriever.bounded):
                still_short.append(number)
        if depth == limit:
            break
        short, depth = still_short, min(depth * 2, limit)
    return [answers[number] for number in range(len(queries))]


def nearest_average(
    group: Sequence[Query],
    retriever: Retriever,
    rules: Rules,
    rng: np.random.Generator,
    *,
    factor: int = 1,
    vectors: bool = False,
    met: Sequence[Collection[str]] = (),  # (group,) folded texts a query has from elsewhere
) -> list[Ranked]:
    """The usable texts nearest to the mean of `group`, dealt out: `factor` x wanted for each query, no text twice.

    Where scores are cosines a text goes to the query most like it that has room, and its score becomes the cosine to
    that query; else in order of rank to the queries in a random order, round and round. Holds the vectors of all hits:
    1.5 kB a text at 384 dimensions.
    """
    room = np.array([query.wanted * factor for query in group])
    taboo = [query.own.union(more) for query, more in zip(group, met or itertools.repeat(()), strict=False)]
    encoded = None
    if retriever.bounded:
        encoded = cast("Encoder", retriever).encode([query.text for query in group])
    order = rng.permutation(len(group)).tolist()
    wanted = int(room.sum())
    limit = min(len(retriever), max(DEEPEST, _DEEPER * wanted))
    asked = min(wanted, limit)
    while True:
        hits, places, keys = _around(group, asked, limit, retriever, rules)
        ids, scores, stored = hits.ids[0][places], hits.scores[0][places], None
        if encoded is None:
            owners = _deal_round(keys, room, taboo, order)
        else:
            assert hits.vectors is not None
            stored = hits.vectors[0][places]
            owners, scores = _deal_alike(stored, encoded, keys, room, taboo, rules)
        # a text that nobody may have (their own, theirs already, out of bounds) leaves someone short: more, then
        if (owners >= 0).sum() == wanted or len(places) < asked or asked == limit:
            return _shared(group, owners, ids, scores, keys, stored if vectors else None)
        asked = min(asked * 2, limit)


def _usable(hits: Hits, place: int, query: Query, wanted: int, texts: _Texts, rules: Rules, bounded: bool) -> Ranked:
    """The first `wanted` hits of a row that may come back; `rules` counts the evaluation texts passed over."""
    scores, ids = hits.scores[place], hits.ids[place]
    allowed = (ids >= 0) & (rules.within(scores) if bounded else scores > 0)  # BM25 0: not a word in common
    seen = set(query.own)
    kept: list[int] = []
    keys: list[str] = []
    for rank in np.flatnonzero(allowed).tolist():
        if len(kept) == wanted:
            break
        text, folded = texts[int(ids[rank])]
        if not folded or folded in seen or folded in rules.taken or rules.guard.refuses(folded, text):
            continue
        seen.add(folded)
        kept.append(rank)
        keys.append(folded)
    vectors = None if hits.vectors is None else hits.vectors[place][kept]
    return Ranked(query, ids[kept], scores[kept], tuple(keys), vectors)


def _exhausted(hits: Hits, place: int, rules: Rules, bounded: bool) -> bool:
    """Whether there is nothing usable any deeper."""
    if hits.ids[place, -1] < 0:
        return True
    last = float(hits.scores[place, -1])
    return 1 - last > rules.max_distance if bounded else last <= 0


def _around(
    group: Sequence[Query], wanted: int, limit: int, retriever: Retriever, rules: Rules
) -> tuple[Hits, list[int], list[str]]:
    """Hits of a group's mean, and the ranks and folds of the usable ones, however far from the mean."""
    texts = _Texts(retriever)
    depth = min(wanted + _MARGIN, limit)
    group_texts = [query.text for query in group]
    while True:
        hits = retriever.search_average([group_texts], depth, vectors=retriever.bounded)
        texts.add(hits.ids)
        anyone = Query(0, "", "", wanted, frozenset())
        everywhere = Rules(rules.guard, 0.0, 2.0, rules.taken)
        usable = _usable(hits, 0, anyone, wanted, texts, everywhere, retriever.bounded)
        if len(usable.ids) == wanted or depth == limit or _exhausted(hits, 0, everywhere, retriever.bounded):
            rank_of = {id_: rank for rank, id_ in enumerate(hits.ids[0].tolist())}
            return hits, [rank_of[id_] for id_ in usable.ids.tolist()], list(usable.keys)
        depth = min(depth * 2, limit)


def _deal_alike(
    stored: NDArray[np.float32],  # (m, dim) texts, nearest to the mean first
    encoded: NDArray[np.float32],  # (n, dim) queries
    keys: Sequence[str],  # (m,)
    room: NDArray[np.int64],  # (n,)
    taboo: Sequence[Collection[str]],  # (n,)
    rules: Rules,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:  # (m,) query, -1: nobody's; (m,) cosine to it
    """Each text in turn to the query most like it that has room and may have it; the first of equals."""
    refusing = _refusing(taboo)
    full = np.where(room > 0, 0.0, -np.inf).astype(np.float32)
    left = room.copy()
    owners = np.full(len(keys), -1, dtype=np.int64)
    scores = np.zeros(len(keys), dtype=np.float32)
    for text, cosines in enumerate(_blockwise(stored, encoded)):
        open_to = np.where(rules.within(cosines), cosines, -np.inf) + full
        open_to[refusing.get(keys[text], [])] = -np.inf
        best = int(open_to.argmax())
        if open_to[best] == -np.inf:
            continue
        owners[text], scores[text] = best, cosines[best]
        left[best] -= 1
        if left[best] == 0:
            full[best] = -np.inf
    return owners, scores


def _deal_round(
    keys: Sequence[str], room: NDArray[np.int64], taboo: Sequence[Collection[str]], order: Sequence[int]
) -> NDArray[np.int64]:  # (m,) query, -1: nobody's
    """Texts in order of rank to the queries in `order`, round and round."""
    left = room.copy()
    waiting = list(order)
    owners = np.full(len(keys), -1, dtype=np.int64)
    for text, key in enumerate(keys):
        turn = next((at for at, query in enumerate(waiting) if left[query] and key not in taboo[query]), None)
        if turn is None:
            continue
        query = waiting.pop(turn)
        owners[text] = query
        left[query] -= 1
        if left[query]:
            waiting.append(query)
    return owners


def _shared(
    group: Sequence[Query],
    owners: NDArray[np.int64],
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    keys: Sequence[str],
    vectors: NDArray[np.float32] | None,
) -> list[Ranked]:
    """What each query was dealt, best first, ties by id."""
    order = np.lexsort((ids, -scores, owners))
    starts = np.searchsorted(owners[order], np.arange(len(group) + 1))
    shared = []
    for number, query in enumerate(group):
        mine = order[starts[number] : starts[number + 1]]
        mine_vectors = None if vectors is None else vectors[mine]
        shared.append(Ranked(query, ids[mine], scores[mine], tuple(keys[at] for at in mine), mine_vectors))
    return shared


def _refusing(taboo: Sequence[Collection[str]]) -> dict[str, list[int]]:
    """Folded text -> the queries that may not have it."""
    refusing: dict[str, list[int]] = {}
    for number, folds in enumerate(taboo):
        for folded in folds:
            refusing.setdefault(folded, []).append(number)
    return refusing


def _blockwise(stored: NDArray[np.float32], encoded: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Row by row the cosines of `stored` to all of `encoded`, never the whole matrix."""
    for start in range(0, len(stored), _DEALT):
        yield from stored[start : start + _DEALT] @ encoded.T
