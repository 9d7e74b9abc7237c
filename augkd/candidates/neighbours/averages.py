"""The usable texts next to the mean of many queries, dealt to the examples that the mean stands for.

Each text goes to the most similar example that still has room (Du et al. 2021, SentAugment, whose label averages beat
one query per sentence).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from augkd.candidates.neighbours.nearest import (
    DEEPEST,
    MARGIN,
    CorpusTexts,
    RankedTexts,
    Rules,
    is_exhausted,
    usable_texts,
)
from augkd.candidates.neighbours.queries import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.encoders.encoder import Encoder
    from augkd.retrieval.retriever import Hits, Retriever

_DEEPER = 4  # an average is searched to this many times the number of texts it has to deal out
_ROWS = 1024  # texts compared with the examples of an average at a time


def nearest_to_average(
    group: Sequence[Query],
    retriever: Retriever,
    rules: Rules,
    rng: np.random.Generator,
    *,
    factor: int = 1,
    vectors: bool = False,
    received: Sequence[Collection[str]] = (),  # (group,) normalised texts that a query has from another search
) -> list[RankedTexts]:
    """The usable texts nearest to the mean of `group`, dealt out: `factor` x wanted for each query, no text twice.

    Where scores are cosines, a text goes to the most similar query that has room, and its score becomes the cosine to
    that query. Otherwise texts go in order of rank to the queries in a random order, round by round. Holds the vectors
    of all hits: 1.5 kB per text at 384 dimensions.
    """
    capacities = np.array([query.wanted * factor for query in group])
    excluded = [query.own.union(more) for query, more in zip(group, received or itertools.repeat(()), strict=False)]
    encoded = None
    if retriever.bounded:
        encoded = cast("Encoder", retriever).encode([query.text for query in group])
    order = rng.permutation(len(group)).tolist()
    wanted = int(capacities.sum())
    limit = min(len(retriever), max(DEEPEST, _DEEPER * wanted))
    count = min(wanted, limit)
    while True:
        hits, ranks, keys = _usable_around_mean(group, count, limit, retriever, rules)
        ids, scores, stored = hits.ids[0][ranks], hits.scores[0][ranks], None
        if encoded is None:
            owners = _deal_in_turn(keys, capacities, excluded, order)
        else:
            assert hits.vectors is not None
            stored = hits.vectors[0][ranks]
            owners, scores = _deal_by_cosine(stored, encoded, keys, capacities, excluded, rules)
        # a text that no query may have (its own, received already, out of bounds) leaves one short: search for more
        if (owners >= 0).sum() == wanted or len(ranks) < count or count == limit:
            return _by_query(group, owners, ids, scores, keys, stored if vectors else None)
        count = min(count * 2, limit)


def _usable_around_mean(
    group: Sequence[Query], wanted: int, limit: int, retriever: Retriever, rules: Rules
) -> tuple[Hits, list[int], list[str]]:
    """Hits of a group's mean, and the ranks and normalised texts of the usable ones, however far from the mean."""
    texts = CorpusTexts(retriever)
    depth = min(wanted + MARGIN, limit)
    group_texts = [query.text for query in group]
    anyone = Query(0, "", "", wanted, frozenset())
    unbounded = Rules(rules.guard, 0.0, 2.0, rules.taken)
    while True:
        hits = retriever.search_average([group_texts], depth, vectors=retriever.bounded)
        texts.read(hits.ids)
        usable = usable_texts(hits, 0, anyone, wanted, texts, unbounded, retriever.bounded)
        if len(usable.ids) == wanted or depth == limit or is_exhausted(hits, 0, unbounded, retriever.bounded):
            rank_of = {id_: rank for rank, id_ in enumerate(hits.ids[0].tolist())}
            return hits, [rank_of[id_] for id_ in usable.ids.tolist()], list(usable.keys)
        depth = min(depth * 2, limit)


def _deal_by_cosine(
    stored: NDArray[np.float32],  # (m, dim) texts, nearest to the mean first
    encoded: NDArray[np.float32],  # (n, dim) queries
    keys: Sequence[str],  # (m,)
    capacities: NDArray[np.int64],  # (n,)
    excluded: Sequence[Collection[str]],  # (n,)
    rules: Rules,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:  # (m,) query, -1: none; (m,) cosine to it
    """Each text in turn to the most similar query that has room and may have it; the first of equals."""
    excluding = _queries_excluding(excluded)
    full = np.where(capacities > 0, 0.0, -np.inf).astype(np.float32)
    left = capacities.copy()
    owners = np.full(len(keys), -1, dtype=np.int64)
    scores = np.zeros(len(keys), dtype=np.float32)
    for text, cosines in enumerate(_cosine_rows(stored, encoded)):
        eligible = np.where(rules.within(cosines), cosines, -np.inf) + full
        eligible[excluding.get(keys[text], [])] = -np.inf
        best = int(eligible.argmax())
        if eligible[best] == -np.inf:
            continue
        owners[text], scores[text] = best, cosines[best]
        left[best] -= 1
        if left[best] == 0:
            full[best] = -np.inf
    return owners, scores


def _deal_in_turn(
    keys: Sequence[str], capacities: NDArray[np.int64], excluded: Sequence[Collection[str]], order: Sequence[int]
) -> NDArray[np.int64]:  # (m,) query, -1: none
    """Texts in order of rank to the queries in `order`, round by round."""
    left = capacities.copy()
    waiting = list(order)
    owners = np.full(len(keys), -1, dtype=np.int64)
    for text, key in enumerate(keys):
        turn = next((at for at, query in enumerate(waiting) if left[query] and key not in excluded[query]), None)
        if turn is None:
            continue
        query = waiting.pop(turn)
        owners[text] = query
        left[query] -= 1
        if left[query]:
            waiting.append(query)
    return owners


def _by_query(
    group: Sequence[Query],
    owners: NDArray[np.int64],
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    keys: Sequence[str],
    vectors: NDArray[np.float32] | None,
) -> list[RankedTexts]:
    """The texts that each query was dealt, best first, ties by id."""
    order = np.lexsort((ids, -scores, owners))
    starts = np.searchsorted(owners[order], np.arange(len(group) + 1))
    dealt = []
    for number, query in enumerate(group):
        own = order[starts[number] : starts[number + 1]]
        own_vectors = None if vectors is None else vectors[own]
        dealt.append(RankedTexts(query, ids[own], scores[own], tuple(keys[text] for text in own), own_vectors))
    return dealt


def _queries_excluding(excluded: Sequence[Collection[str]]) -> dict[str, list[int]]:
    """Normalised text -> the queries that may not have it."""
    excluding: dict[str, list[int]] = {}
    for number, keys in enumerate(excluded):
        for key in keys:
            excluding.setdefault(key, []).append(number)
    return excluding


def _cosine_rows(stored: NDArray[np.float32], encoded: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Row by row the cosines of `stored` to all of `encoded`, without the whole matrix."""
    for start in range(0, len(stored), _ROWS):
        yield from stored[start : start + _ROWS] @ encoded.T
