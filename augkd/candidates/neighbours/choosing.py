"""Usable texts to chosen ones, for each way of asking: by example, by pair, by average.

The nearest are taken as they come unless something speaks against it: diversity (MMR) or uniqueness, which choose from
four times as many. Uniqueness is settled over all examples at once, so it alone keeps what every example could have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from augkd.candidates.neighbours.diversity import POOL, mmr, one_owner_each
from augkd.candidates.neighbours.nearest import Ranked, Rules, nearest, nearest_average
from augkd.candidates.neighbours.pairs import best_combinations, joined_by_cosine, joined_by_rank
from augkd.candidates.neighbours.queries import Query, grouped, queries_of, unit_queries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.data.task import Example
    from augkd.retrieval.encoders.encoder import Encoder
    from augkd.retrieval.retriever import Retriever

_BLOCK = 4096  # examples looked up together
_BLOCK_WITH_VECTORS = 512  # 4096 x 40 hits x 384 dimensions would be 250 MB

Told = Callable[[int], None]  # examples done


@dataclass(frozen=True)
class Chosen:
    """What may stand, and in the end does stand, in the place of a query."""

    query: Query
    ids: NDArray[np.int64]  # (m, 1), or (m, 2) where both sides of a pair are replaced
    scores: NDArray[np.float32]  # (m,) best first; where both are replaced the mean of the two
    keys: list[tuple[str, ...]]  # (m,) their folded texts
    likeness: NDArray[np.float32] | None = None  # (m, m) cosines among them, where diversity asks for it

    def take(self, places: Sequence[int]) -> Chosen:
        """Those at `places` only."""
        at = list(places)
        likeness = None if self.likeness is None else self.likeness[np.ix_(at, at)]
        return Chosen(self.query, self.ids[at], self.scores[at], [self.keys[place] for place in at], likeness)


@dataclass
class Search:
    """What all ways of asking share; `owners` fills as texts find theirs."""

    examples: Sequence[Example]
    retriever: Retriever
    rules: Rules
    unit: str
    language: str
    diversity: float
    unique: bool
    rng: np.random.Generator
    owners: dict[str, int] = field(default_factory=dict)  # folded text -> row, where a text has one owner only

    @property
    def factor(self) -> int:
        """How many times the wanted neighbours are to choose from."""
        return POOL if self.diversity or self.unique else 1

    def queries(self, start: int, stop: int, k: int) -> list[Query]:
        """The queries of the examples from `start` to `stop`."""
        made: list[Query] = []
        for row, example in enumerate(self.examples[start:stop], start):
            made += queries_of(row, example, k, unit=self.unit, language=self.language)
        return made


def near_examples(search: Search, k: int, told: Told) -> list[Chosen]:
    """The nearest texts of every example itself."""
    chosen: list[Chosen] = []
    vectors = search.diversity > 0
    size = _BLOCK_WITH_VECTORS if vectors else _BLOCK
    for start in range(0, len(search.examples), size):
        queries = search.queries(start, start + size, k)
        ranked = nearest(queries, search.retriever, _rules(search), factor=search.factor, vectors=vectors)
        chosen += _unless_unique(search, map(_usable, ranked))
        told(min(start + size, len(search.examples)))
    return _settled(search, chosen)


def near_pairs(search: Search, k: int, told: Told) -> list[Chosen]:
    """Both sides of every pair replaced at once, the best of POOL x k usable texts for each side combined."""
    chosen: list[Chosen] = []
    bounded = search.retriever.bounded
    for start in range(0, len(search.examples), _BLOCK_WITH_VECTORS):
        block = search.examples[start : start + _BLOCK_WITH_VECTORS]
        sides = [query for row, example in enumerate(block, start) for query in unit_queries(row, example, k)]
        ranked = nearest(sides, search.retriever, _rules(search), factor=POOL, vectors=bounded)
        relations = _relations(search.retriever, sides) if bounded else np.zeros(len(block))
        joined = map(_joined, ranked[::2], ranked[1::2], relations.tolist(), [k * search.factor] * len(block))
        chosen += _unless_unique(search, joined)
        told(start + len(block))
    return _settled(search, chosen)


def near_averages(search: Search, k: int, by: str, chosen: Sequence[Chosen], told: Told) -> list[Chosen]:
    """The texts nearest to the average of each class (`label`) or of the `task`, dealt to its examples.

    What an example has been given already (`chosen`) it does not get again in the same place.
    """
    had: dict[tuple[int, str], set[str]] = {}
    for some in chosen:
        had.setdefault((some.query.row, some.query.place), set()).update(key for keys in some.keys for key in keys)
    groups = grouped(search.queries(0, len(search.examples), k), search.examples, by)
    dealt: list[Chosen] = []
    for done, group in enumerate(groups, 1):
        ranked = nearest_average(
            group,
            search.retriever,
            _rules(search),
            search.rng,
            factor=search.factor,
            vectors=search.diversity > 0,
            met=[had.get((query.row, query.place), set()) for query in group],
        )
        dealt += _unless_unique(search, map(_usable, ranked))
        told(len(search.examples) * done // len(groups))
    return _settled(search, dealt)


def _rules(search: Search) -> Rules:
    return replace(search.rules, taken=frozenset(search.owners)) if search.unique else search.rules


def _unless_unique(search: Search, pools: Iterable[Chosen]) -> Iterable[Chosen]:
    """Cut to what is wanted at once, unless the others have a say."""
    return pools if search.unique else (_cut(pool, search.diversity) for pool in pools)


def _settled(search: Search, pools: list[Chosen]) -> list[Chosen]:
    """Each text with its one owner, where that is asked for."""
    if not search.unique:
        return pools
    # with diversity an example keeps all it wins, to choose from; without, a text it has no room for goes to the next
    extra = POOL if search.diversity else 1
    kept = one_owner_each(
        [pool.scores for pool in pools],
        [pool.keys for pool in pools],
        [pool.query.row for pool in pools],
        [pool.query.wanted * extra for pool in pools],
        search.owners,
    )
    return [_cut(pool.take(places), search.diversity) for pool, places in zip(pools, kept, strict=True)]


def _cut(pool: Chosen, diversity: float) -> Chosen:
    wanted = pool.query.wanted
    if pool.likeness is None:
        return pool.take(range(min(wanted, len(pool.ids))))
    return replace(pool.take(mmr(pool.scores, pool.likeness, wanted, diversity)), likeness=None)


def _usable(ranked: Ranked) -> Chosen:
    likeness = None if ranked.vectors is None else ranked.vectors @ ranked.vectors.T
    return Chosen(ranked.query, ranked.ids[:, None], ranked.scores, [(key,) for key in ranked.keys], likeness)


def _joined(first: Ranked, second: Ranked, relation: float, keep: int) -> Chosen:
    """Combinations of one neighbour for each side, as one query's."""
    if first.vectors is not None and second.vectors is not None:
        worth = joined_by_cosine(first.scores, second.scores, first.vectors @ second.vectors.T, relation)
    else:
        worth = joined_by_rank(len(first.ids), len(second.ids))
    places = np.array(best_combinations(worth, first.keys, second.keys, keep), dtype=np.int64).reshape(-1, 2)
    a, b = places[:, 0], places[:, 1]
    keys: list[tuple[str, ...]] = [(first.keys[i], second.keys[j]) for i, j in places.tolist()]
    scores = np.asarray((first.scores[a] + second.scores[b]) / 2, dtype=np.float32)
    return Chosen(first.query, np.stack([first.ids[a], second.ids[b]], axis=1), scores, keys)


def _relations(retriever: Retriever, sides: Sequence[Query]) -> NDArray[np.float32]:
    """The cosine of the two sides of each pair."""
    vectors = cast("Encoder", retriever).encode([query.text for query in sides])
    return np.asarray((vectors[::2] * vectors[1::2]).sum(axis=1))
