"""Candidates from an index: the texts nearest to each example.

What must never come back is decided by folded text, not by id or rank: the example itself, evaluation texts, and
texts that differ from a nearer one in punctuation or case only. What that leaves short is asked for again, deeper.
Of a pair, each side is replaced in turn (Kamalloo et al. 2021, "Not Far Away, Not So Close").
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from augkd.data.corpus import fold
from augkd.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.data.task import Example
    from augkd.retrieval.encoder import Encoder
    from augkd.retrieval.index import Index

SOURCE = "neighbours"
DEEPEST = 256  # ranks looked at, however many of them are withheld
_BLOCK = 4096  # examples encoded and searched together
_MARGIN = 8  # ranks asked for beyond k, for the few that are withheld


@dataclass(frozen=True)
class Neighbour:
    """A text of the index and its cosine to the query."""

    id: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """An extra text, and the id of the example it was made from."""

    id: str
    owner: str
    text: str
    text_pair: str | None
    source: str
    score: float


@dataclass(frozen=True)
class Found:
    """The candidates, and what was kept from them."""

    candidates: list[list[Candidate]]  # per example, best first
    excluded_evaluation_texts: int  # distinct corpus texts withheld
    short: int  # examples with fewer than k


@dataclass(frozen=True)
class _Query:
    row: int  # of the example, in its block
    side: str  # "text" or "pair": which side a neighbour replaces; "" for a single text
    text: str
    wanted: int
    own: frozenset[str]  # folded texts of the example


@dataclass(frozen=True)
class _Rules:
    excluded: Collection[str]
    min_distance: float
    max_distance: float


def find_neighbours(
    examples: Sequence[Example],
    index: Index,
    encoder: Encoder,
    *,
    k: int,
    excluded: Collection[str],
    min_distance: float = 0.0,
    max_distance: float = 2.0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Found:
    """The `k` nearest usable texts of each example; of a pair, half of k for each side, the odd one for `text`.

    `excluded` holds folded evaluation texts. Distances are 1 - cosine, so 0 to 2; the defaults disable both bounds.
    """
    if k < 1:
        raise RecipeError(f"neighbours k is {k}; give at least 1")
    if not 0 <= min_distance <= max_distance <= 2:
        raise RecipeError(
            f"neighbours min_distance {min_distance}, max_distance {max_distance}: need 0 <= min <= max <= 2"
        )
    excluded = excluded if isinstance(excluded, (set, frozenset)) else frozenset(excluded)
    rules = _Rules(excluded, min_distance, max_distance)

    candidates: list[list[Candidate]] = []
    withheld: set[str] = set()
    for start in range(0, len(examples), _BLOCK):
        block = examples[start : start + _BLOCK]
        queries = [query for row, example in enumerate(block) for query in _queries(row, example, k)]
        vectors = encoder.encode([query.text for query in queries])
        answers = _answer(queries, vectors, index, rules, withheld)
        candidates += _candidates(block, queries, answers)
        if progress is not None:
            progress(len(candidates), len(examples))

    return Found(candidates, len(withheld), sum(len(found) < k for found in candidates))


def _queries(row: int, example: Example, k: int) -> Iterator[_Query]:
    if example.text_pair is None:
        yield _Query(row, "", example.text, k, frozenset({fold(example.text)}))
        return
    # a neighbour equal to the other side is refused too: it would make a pair of one text with itself
    own = frozenset({fold(example.text), fold(example.text_pair)})
    yield _Query(row, "text", example.text, k - k // 2, own)
    if k > 1:
        yield _Query(row, "pair", example.text_pair, k // 2, own)


def _answer(
    queries: Sequence[_Query],
    vectors: NDArray[np.float32],  # (queries, dim)
    index: Index,
    rules: _Rules,
    withheld: set[str],
) -> list[list[Neighbour]]:
    """The usable neighbours of each query; twice as deep each round for the queries that are still short."""
    answers: list[list[Neighbour]] = [[] for _ in queries]
    limit = min(len(index), DEEPEST)
    depth = min(max((query.wanted for query in queries), default=0) + _MARGIN, limit)
    short = list(range(len(queries)))
    while short:
        scores, ids = index.search(vectors[short], depth)
        texts = _folded_texts(index, ids)
        still_short = []
        for number, neighbours in zip(short, _rows(scores, ids, texts), strict=True):
            usable = _usable(neighbours, queries[number], texts, rules, withheld)
            answers[number] = usable
            exhausted = len(neighbours) < depth or 1 - neighbours[-1].score > rules.max_distance
            if len(usable) < queries[number].wanted and not exhausted:
                still_short.append(number)
        if depth >= limit:
            break
        short, depth = still_short, min(depth * 2, limit)
    return answers


def _folded_texts(index: Index, ids: NDArray[np.int64]) -> dict[int, tuple[str, str]]:
    """Text and folded text of every id that occurs; each is read once however many queries met it."""
    distinct = np.unique(ids)
    distinct = distinct[distinct >= 0]  # FAISS pads with -1
    return {int(id_): (text, fold(text)) for id_, text in zip(distinct, index.texts(distinct), strict=True)}


def _rows(
    scores: NDArray[np.float32],  # (queries, depth)
    ids: NDArray[np.int64],  # (queries, depth)
    texts: Mapping[int, tuple[str, str]],
) -> Iterator[list[Neighbour]]:
    for row_scores, row_ids in zip(scores, ids, strict=True):
        found = [
            Neighbour(int(id_), texts[int(id_)][0], float(score))
            for id_, score in zip(row_ids, row_scores, strict=True)
            if id_ >= 0
        ]
        yield sorted(found, key=lambda neighbour: (-neighbour.score, neighbour.id))  # FAISS leaves ties in any order


def _usable(
    neighbours: Sequence[Neighbour],
    query: _Query,
    texts: Mapping[int, tuple[str, str]],
    rules: _Rules,
    withheld: set[str],
) -> list[Neighbour]:
    """The first `query.wanted` neighbours that may come back; evaluation texts passed over go into `withheld`."""
    usable: list[Neighbour] = []
    seen = set(query.own)
    for neighbour in neighbours:
        if len(usable) == query.wanted:
            break
        distance = min(max(1 - neighbour.score, 0.0), 2.0)  # rounding takes cosines past 1
        if not rules.min_distance <= distance <= rules.max_distance:
            continue
        folded = texts[neighbour.id][1]
        if folded in rules.excluded:
            withheld.add(folded)
        elif folded and folded not in seen:
            seen.add(folded)
            usable.append(neighbour)
    return usable


def _candidates(
    examples: Sequence[Example], queries: Sequence[_Query], answers: Sequence[Sequence[Neighbour]]
) -> list[list[Candidate]]:
    """The answers as candidates of their examples; the two sides of a pair are interleaved by score."""
    found: list[list[tuple[float, int, str, Candidate]]] = [[] for _ in examples]
    for query, neighbours in zip(queries, answers, strict=True):
        example = examples[query.row]
        for neighbour in neighbours:
            found[query.row].append(
                (-neighbour.score, neighbour.id, query.side, _candidate(example, query.side, neighbour))
            )
    return [[candidate for *_, candidate in sorted(row, key=lambda entry: entry[:3])] for row in found]


def _candidate(example: Example, side: str, neighbour: Neighbour) -> Candidate:
    text = example.text if side == "pair" else neighbour.text
    text_pair = neighbour.text if side == "pair" else example.text_pair
    id_ = f"n{neighbour.id}-{side}" if side else f"n{neighbour.id}"
    return Candidate(id_, example.id, text, text_pair, SOURCE, neighbour.score)
