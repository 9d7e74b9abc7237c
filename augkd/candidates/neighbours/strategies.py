"""From usable texts to chosen ones, for each strategy of a recipe: by example, by pair, by average.

The nearest texts are taken in their order unless a recipe sets diversity (MMR) or uniqueness, which choose from four
times as many. Uniqueness is settled over all examples at once, so only then everything an example could have is kept
until the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from augkd.candidates.neighbours.averages import nearest_to_average
from augkd.candidates.neighbours.diversity import OVERSAMPLING, assign_owners, mmr
from augkd.candidates.neighbours.nearest import RankedTexts, Rules, nearest
from augkd.candidates.neighbours.pairs import best_combinations, scores_by_cosine, scores_by_rank
from augkd.candidates.neighbours.progress import Block
from augkd.candidates.neighbours.queries import Query, group_queries, queries_of, unit_queries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.data.task import Example
    from augkd.retrieval.encoders.encoder import Encoder
    from augkd.retrieval.retriever import Retriever

_BLOCK = 4096  # examples searched together
_BLOCK_WITH_VECTORS = 512  # 4096 x 40 hits x 384 dimensions would be 250 MB


@dataclass(frozen=True)
class Replacements:
    """The texts that may take the place of a query, and after the choice those that do."""

    query: Query
    ids: NDArray[np.int64]  # (m, 1), or (m, 2) where both sides of a pair are replaced
    scores: NDArray[np.float32]  # (m,) best first; the mean of the two where both sides are replaced
    keys: list[tuple[str, ...]]  # (m,) their normalised texts
    similarity: NDArray[np.float32] | None = None  # (m, m) cosines among them, where diversity needs them

    def take(self, places: Sequence[int]) -> Replacements:
        """Only those at `places`."""
        kept = list(places)
        similarity = None if self.similarity is None else self.similarity[np.ix_(kept, kept)]
        return Replacements(
            self.query, self.ids[kept], self.scores[kept], [self.keys[place] for place in kept], similarity
        )


@dataclass
class Search:
    """What all strategies share; `owners` fills as texts get theirs."""

    examples: Sequence[Example]
    retriever: Retriever
    rules: Rules
    unit: str
    language: str
    diversity: float
    unique: bool
    rng: np.random.Generator
    owners: dict[str, int] = field(default_factory=dict)  # normalised text -> row, where a text has one owner only

    @property
    def factor(self) -> int:
        """How many usable texts are searched for each one wanted."""
        return OVERSAMPLING if self.diversity or self.unique else 1

    def queries(self, start: int, stop: int, k: int) -> list[Query]:
        """The queries of the examples from `start` to `stop`."""
        queries: list[Query] = []
        for row, example in enumerate(self.examples[start:stop], start):
            queries += queries_of(row, example, k, unit=self.unit, language=self.language)
        return queries


def choose_by_example(search: Search, k: int, progress: Block) -> list[Replacements]:
    """The nearest texts of every example itself; `progress` counts examples."""
    chosen: list[Replacements] = []
    vectors = search.diversity > 0
    size = _BLOCK_WITH_VECTORS if vectors else _BLOCK
    for start in range(0, len(search.examples), size):
        stop = min(start + size, len(search.examples))
        block = progress.block(start, stop - start)
        queries = search.queries(start, stop, k)
        ranked = nearest(
            queries, search.retriever, _rules(search), factor=search.factor, vectors=vectors, progress=block
        )
        chosen += _cut_unless_unique(search, map(_replacements, ranked))
        block.finish()
    return _settled(search, chosen)


def choose_by_pair(search: Search, k: int, progress: Block) -> list[Replacements]:
    """Both sides of every pair replaced at once: the best combinations of OVERSAMPLING x k usable texts per side."""
    chosen: list[Replacements] = []
    bounded = search.retriever.bounded
    for start in range(0, len(search.examples), _BLOCK_WITH_VECTORS):
        examples = search.examples[start : start + _BLOCK_WITH_VECTORS]
        block = progress.block(start, len(examples))
        sides = [query for row, example in enumerate(examples, start) for query in unit_queries(row, example, k)]
        ranked = nearest(sides, search.retriever, _rules(search), factor=OVERSAMPLING, vectors=bounded, progress=block)
        relations = _relations(search.retriever, sides) if bounded else np.zeros(len(examples))
        combined = map(_combined, ranked[::2], ranked[1::2], relations.tolist(), [k * search.factor] * len(examples))
        chosen += _cut_unless_unique(search, combined)
        block.finish()
    return _settled(search, chosen)


def choose_by_average(
    search: Search, k: int, by: str, earlier: Sequence[Replacements], progress: Block
) -> list[Replacements]:
    """The texts nearest to the average of each class (`label`) or of the `task`, dealt to its examples.

    A text that an example has from an `earlier` choice does not come again in the same place.
    """
    received: dict[tuple[int, str], set[str]] = {}
    for choice in earlier:
        received.setdefault((choice.query.row, choice.query.place), set()).update(
            key for keys in choice.keys for key in keys
        )
    groups = group_queries(search.queries(0, len(search.examples), k), search.examples, by)
    queries, answered = sum(map(len, groups)), 0
    chosen: list[Replacements] = []
    for group in groups:
        progress(answered, queries)
        ranked = nearest_to_average(
            group,
            search.retriever,
            _rules(search),
            search.rng,
            factor=search.factor,
            vectors=search.diversity > 0,
            received=[received.get((query.row, query.place), set()) for query in group],
        )
        chosen += _cut_unless_unique(search, map(_replacements, ranked))
        answered += len(group)
    progress.finish()
    return _settled(search, chosen)


def _rules(search: Search) -> Rules:
    return replace(search.rules, taken=frozenset(search.owners)) if search.unique else search.rules


def _cut_unless_unique(search: Search, pools: Iterable[Replacements]) -> Iterable[Replacements]:
    """Each cut to the number wanted, unless that depends on the other examples."""
    return pools if search.unique else (_cut(pool, search.diversity) for pool in pools)


def _settled(search: Search, pools: list[Replacements]) -> list[Replacements]:
    """Each text with its one owner, where texts must be unique."""
    if not search.unique:
        return pools
    # with diversity an example keeps all it wins, to choose from; without, a text it has no room for goes to the next
    extra = OVERSAMPLING if search.diversity else 1
    kept = assign_owners(
        [pool.scores for pool in pools],
        [pool.keys for pool in pools],
        [pool.query.row for pool in pools],
        [pool.query.wanted * extra for pool in pools],
        search.owners,
    )
    return [_cut(pool.take(places), search.diversity) for pool, places in zip(pools, kept, strict=True)]


def _cut(pool: Replacements, diversity: float) -> Replacements:
    wanted = pool.query.wanted
    if pool.similarity is None:
        return pool.take(range(min(wanted, len(pool.ids))))
    return replace(pool.take(mmr(pool.scores, pool.similarity, wanted, diversity)), similarity=None)


def _replacements(ranked: RankedTexts) -> Replacements:
    similarity = None if ranked.vectors is None else ranked.vectors @ ranked.vectors.T
    return Replacements(ranked.query, ranked.ids[:, None], ranked.scores, [(key,) for key in ranked.keys], similarity)


def _combined(first: RankedTexts, second: RankedTexts, relation: float, keep: int) -> Replacements:
    """Combinations of one neighbour for each side, as the replacements of one query."""
    if first.vectors is not None and second.vectors is not None:
        combination_scores = scores_by_cosine(first.scores, second.scores, first.vectors @ second.vectors.T, relation)
    else:
        combination_scores = scores_by_rank(len(first.ids), len(second.ids))
    chosen = best_combinations(combination_scores, first.keys, second.keys, keep)
    places = np.array(chosen, dtype=np.int64).reshape(-1, 2)
    a, b = places[:, 0], places[:, 1]
    keys: list[tuple[str, ...]] = [(first.keys[i], second.keys[j]) for i, j in places.tolist()]
    scores = np.asarray((first.scores[a] + second.scores[b]) / 2, dtype=np.float32)
    return Replacements(first.query, np.stack([first.ids[a], second.ids[b]], axis=1), scores, keys)


def _relations(retriever: Retriever, sides: Sequence[Query]) -> NDArray[np.float32]:
    """The cosine between the two sides of each pair."""
    vectors = cast("Encoder", retriever).encode([query.text for query in sides])
    return np.asarray((vectors[::2] * vectors[1::2]).sum(axis=1))
