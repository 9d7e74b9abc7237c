"""The usable texts next to each query.

What must never come back is decided by normalised text, not by id or rank: the example itself, evaluation texts and
their near copies, and texts that differ from a nearer one in punctuation or case only. Queries that this leaves short
are searched again, deeper.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from augkd.candidates.neighbours.near_copies import Guard
from augkd.candidates.neighbours.queries import Query
from augkd.data.cleaning import normalised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.retriever import Hits, Retriever
    from augkd.workspace.progress import Steps

DEEPEST = 256  # ranks searched for one query, however many of them are rejected
MARGIN = 8  # ranks searched beyond those wanted, for the few that are rejected


@dataclass(frozen=True)
class Rules:
    """Which texts may come back; `guard` counts the evaluation texts it rejects."""

    guard: Guard
    min_distance: float
    max_distance: float
    taken: Collection[str] = ()  # normalised texts that have an owner

    def within(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which cosines are within the distance bounds; rounding takes some cosines past 1."""
        distance = np.clip(1 - scores, 0.0, 2.0)
        return np.asarray((self.min_distance <= distance) & (distance <= self.max_distance))


@dataclass(frozen=True)
class RankedTexts:
    """The usable texts of one query, best first."""

    query: Query
    ids: NDArray[np.int64]  # (m,)
    scores: NDArray[np.float32]  # (m,)
    keys: tuple[str, ...]  # (m,) normalised texts
    vectors: NDArray[np.float32] | None  # (m, dim)


class CorpusTexts:
    """Texts by id, as they are and normalised; each is read and normalised once, however many queries meet it."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._known: dict[int, tuple[str, str]] = {}

    def read(self, ids: NDArray[np.int64]) -> None:
        """Reads the texts with these ids; -1 is skipped."""
        new = [id_ for id_ in np.unique(ids[ids >= 0]).tolist() if id_ not in self._known]
        for id_, text in zip(new, self._retriever.texts(new) if new else (), strict=True):
            self._known[id_] = (text, normalised(text))

    def __getitem__(self, id_: int) -> tuple[str, str]:
        return self._known[id_]


def nearest(
    queries: Sequence[Query],
    retriever: Retriever,
    rules: Rules,
    *,
    factor: int = 1,
    vectors: bool = False,
    progress: Steps | None = None,
) -> list[RankedTexts]:
    """The first `factor` x wanted usable texts of each query; twice as deep each round for those still short.

    `progress` counts the queries of the first round.
    """
    texts = CorpusTexts(retriever)
    most = max((query.wanted for query in queries), default=0) * factor + MARGIN
    limit = min(len(retriever), max(DEEPEST, most))
    depth = min(most, limit)
    answers: dict[int, RankedTexts] = {}
    short = list(range(len(queries)))
    while short:
        query_texts = [queries[number].text for number in short]
        hits = retriever.search(query_texts, depth, vectors=vectors, progress=progress)
        texts.read(hits.ids)
        still_short = []
        for place, number in enumerate(short):
            wanted = queries[number].wanted * factor
            usable = usable_texts(hits, place, queries[number], wanted, texts, rules, retriever.bounded)
            answers[number] = usable
            if len(usable.ids) < wanted and not is_exhausted(hits, place, rules, retriever.bounded):
                still_short.append(number)
        if depth == limit:
            break
        short, depth, progress = still_short, min(depth * 2, limit), None
    return [answers[number] for number in range(len(queries))]


def usable_texts(
    hits: Hits, place: int, query: Query, wanted: int, texts: CorpusTexts, rules: Rules, bounded: bool
) -> RankedTexts:
    """The first `wanted` hits of row `place` that may come back; `rules` counts the evaluation texts passed over."""
    scores, ids = hits.scores[place], hits.ids[place]
    allowed = (ids >= 0) & (rules.within(scores) if bounded else scores > 0)  # BM25 0: no word in common
    seen = set(query.own)
    ranks: list[int] = []
    keys: list[str] = []
    for rank in np.flatnonzero(allowed).tolist():
        if len(ranks) == wanted:
            break
        text, key = texts[int(ids[rank])]
        if not key or key in seen or key in rules.taken or rules.guard.rejects(key, text):
            continue
        seen.add(key)
        ranks.append(rank)
        keys.append(key)
    vectors = None if hits.vectors is None else hits.vectors[place][ranks]
    return RankedTexts(query, ids[ranks], scores[ranks], tuple(keys), vectors)


def is_exhausted(hits: Hits, place: int, rules: Rules, bounded: bool) -> bool:
    """Whether nothing usable can come any deeper in row `place`."""
    if hits.ids[place, -1] < 0:
        return True
    last = float(hits.scores[place, -1])
    return 1 - last > rules.max_distance if bounded else last <= 0
