"""Candidates from an index: for each example the texts that are most similar to it.

Queries define what is searched for and where a neighbour goes (queries.py), the search which texts are usable
(nearest.py, averages.py), the strategies which of them are taken (strategies.py); here they become candidates. By
default an example gets its own nearest texts, one side of a pair replaced at a time (Kamalloo et al. 2021, "Not Far
Away, Not So Close").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from augkd.candidates.candidate import Candidate
from augkd.candidates.neighbours.near_copies import NEAR_COPY, WithheldText, check_near_copy, distinct_texts, make_guard
from augkd.candidates.neighbours.nearest import Rules
from augkd.candidates.neighbours.progress import SearchProgress
from augkd.candidates.neighbours.queries import check_classes, with_sentences
from augkd.candidates.neighbours.strategies import (
    Replacements,
    Search,
    choose_by_average,
    choose_by_example,
    choose_by_pair,
)
from augkd.errors import RecipeError, did_you_mean
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from augkd.data.task import Example
    from augkd.retrieval.retriever import Retriever

SOURCE = "neighbours"
QUERIES = ("example", "label", "task", "mix")
UNITS = ("text", "sentence")
PAIRS = ("each", "unit", "both")
_BLOCK = 4096  # examples whose neighbours are read together


@dataclass(frozen=True)
class Neighbours:
    """The candidates of a neighbour search, and the texts withheld from it."""

    candidates: list[list[Candidate]]  # per example, best first
    excluded_evaluation_texts: int  # distinct corpus texts withheld: equal to an evaluation text when normalised
    short: int  # examples with fewer than k
    excluded_near_copies: int = 0  # distinct corpus texts withheld: near copies of an evaluation text
    withheld: tuple[WithheldText, ...] = ()  # at most 100 of both, the least similar first

    @classmethod
    def none(cls, examples: int) -> Neighbours:
        """No candidate for any example, because none was searched for."""
        return cls([[] for _ in range(examples)], 0, 0)


def find_neighbours(
    examples: Sequence[Example],
    retriever: Retriever,
    *,
    k: int,
    evaluation: Sequence[str],
    near_copy: float = NEAR_COPY,
    queries: str = "example",
    unit: str = "text",
    language: str = "en",
    pairs: str = "each",
    diversity: float = 0.0,
    unique: bool = False,
    min_distance: float = 0.0,
    max_distance: float = 2.0,
    sample: int | None = None,
    seed: int = 0,
    progress: Steps | None = None,
) -> Neighbours:
    """`k` usable texts of the corpus for each example, best first.

    `evaluation` holds the validation and test texts as they are; texts equal to one when normalised, or with a cosine
    of at least `near_copy` to one, never come back (1 disables the latter). `queries`: the query is each `example`, or
    the average of its class (`label`) or of the `task`, whose neighbours are dealt to the most similar examples, or
    half and half (`mix`, the odd one to the example). `unit` `sentence`: a neighbour replaces one sentence of a text,
    split by the rules of `language`. `pairs`: a neighbour replaces one side (`each`), two replace both (`unit`), or
    half and half (`both`). `diversity` in [0, 1] is the weight of dissimilarity to other neighbours (MMR; 0 disables).
    `unique`: a text has one owner. Distances are 1 - cosine to the replaced text, so 0 to 2; the defaults disable both
    bounds. `sample`: so many of each example's are drawn at random and kept (None: all). `seed` decides which, and how
    neighbours of an average are dealt out where scores are not cosines. `progress` counts the texts
    searched for: the evaluation texts (unless `near_copy` is 1), then the examples, twice for the strategies in halves.

    Raises RecipeError for options that exclude each other, DataError where `label` meets an example without a class.
    """
    _check(k, queries, unit, pairs, diversity, min_distance, max_distance)
    check_near_copy(near_copy)
    _check_fit(examples, retriever, queries, pairs, diversity, max_distance - min_distance < 2)
    guarded = distinct_texts(with_sentences(evaluation, language) if unit == "sentence" else evaluation)
    checked = 0 if near_copy == 1 else len(guarded)
    parts = _parts(queries, pairs, k)
    whole = SearchProgress(progress, checked + len(parts) * len(examples))

    guard = make_guard(guarded, retriever, near_copy, whole.block(0, checked))
    rules = Rules(guard, min_distance, max_distance)
    search = Search(examples, retriever, rules, unit, language, diversity, unique, np.random.default_rng(seed))
    chosen: list[Replacements] = []
    for number, (by, part_k) in enumerate(parts):
        part = whole.block(checked + number * len(examples), len(examples))
        if by == "example":
            chosen += choose_by_example(search, part_k, part)
        elif by == "unit":
            chosen += choose_by_pair(search, part_k, part)
        else:
            chosen += choose_by_average(search, part_k, by, chosen, part)

    candidates = _candidates(examples, chosen, retriever)
    short = sum(len(pool) < k for pool in candidates)
    if sample is not None:
        candidates = [_drawn(pool, sample, seed, row) for row, pool in enumerate(candidates)]
    return Neighbours(candidates, len(guard.equal), short, len(guard.near), guard.withheld())


def _check(
    k: int, queries: str, unit: str, pairs: str, diversity: float, min_distance: float, max_distance: float
) -> None:
    if k < 1:
        raise RecipeError(f"neighbours k is {k}; give at least 1")
    for name, value, known in (("queries", queries, QUERIES), ("unit", unit, UNITS), ("pairs", pairs, PAIRS)):
        if value not in known:
            raise RecipeError(f"neighbours {name} is {value!r}{did_you_mean(value, known)}")
    if not 0 <= min_distance <= max_distance <= 2:
        raise RecipeError(
            f"neighbours min_distance {min_distance}, max_distance {max_distance}; need 0 <= min <= max <= 2"
        )
    if not 0 <= diversity <= 1:
        raise RecipeError(f"neighbours diversity is {diversity}; give a weight from 0 (off) to 1")
    if pairs != "each" and (queries, unit, diversity) != ("example", "text", 0):
        raise RecipeError(
            f"neighbours pairs {pairs!r} goes with queries 'example', unit 'text' and diversity 0 only; "
            f"they are {queries!r}, {unit!r} and {diversity}"
        )


def _check_fit(
    examples: Sequence[Example], retriever: Retriever, queries: str, pairs: str, diversity: float, bounds: bool
) -> None:
    """Raises where an option needs what the examples or the index do not have."""
    if (diversity or bounds) and not retriever.bounded:
        option = "diversity" if diversity else "min_distance and max_distance"
        raise RecipeError(
            f"neighbours {option} cannot be used with the lexical index {retriever.folder}, whose BM25 scores are not "
            "cosines; leave it out or build a dense index"
        )
    single = next((example for example in examples if example.text_pair is None), None)
    if pairs != "each" and single is not None:
        raise RecipeError(f"neighbours pairs is {pairs!r}, but example {single.id!r} is a single text; leave it out")
    if queries in ("label", "mix"):
        check_classes(examples)


def _parts(queries: str, pairs: str, k: int) -> list[tuple[str, int]]:
    """The strategies and the number of neighbours of each: `mix` and `both` halve k, the odd one to the first."""
    if queries == "mix":
        parts = [("example", k - k // 2), ("label", k // 2)]
    elif pairs == "both":
        parts = [("example", k - k // 2), ("unit", k // 2)]
    else:
        parts = [("unit" if pairs == "unit" else queries, k)]
    return [(by, share) for by, share in parts if share]


def _candidates(
    examples: Sequence[Example], chosen: Sequence[Replacements], retriever: Retriever
) -> list[list[Candidate]]:
    """The chosen texts as candidates of their examples, best first whichever side they replace; ties by id, place."""
    by_row: list[list[Replacements]] = [[] for _ in examples]
    for replacements in chosen:
        by_row[replacements.query.row].append(replacements)
    candidates: list[list[Candidate]] = []
    for start in range(0, len(examples), _BLOCK):
        rows = by_row[start : start + _BLOCK]
        ids = sorted({id_ for row in rows for entry in row for id_ in entry.ids.ravel().tolist()})
        text_of = dict(zip(ids, retriever.texts(ids) if ids else (), strict=True))
        for example, row in zip(examples[start : start + _BLOCK], rows, strict=True):
            ranked = [
                (
                    -float(score),
                    ids_.tolist(),
                    entry.query.place,
                    _candidate(example, entry, ids_.tolist(), score, text_of),
                )
                for entry in row
                for ids_, score in zip(entry.ids, entry.scores, strict=True)
            ]
            candidates.append([candidate for *_, candidate in sorted(ranked, key=lambda entry: entry[:3])])
    return candidates


def _drawn(pool: list[Candidate], count: int, seed: int, row: int) -> list[Candidate]:
    """`count` candidates at random, in the order of the pool."""
    if count >= len(pool):
        return pool
    drawn = np.random.default_rng((seed, row)).choice(len(pool), count, replace=False)
    return [pool[place] for place in np.sort(drawn)]


def _candidate(
    example: Example, replacements: Replacements, ids: Sequence[int], score: float, text_of: Mapping[int, str]
) -> Candidate:
    query = replacements.query
    if query.side == "unit":
        first, second = ids
        id_ = f"n{first}-n{second}"
        return Candidate(id_, example.id, text_of[first], text_of[second], SOURCE, float(score))
    replaced = query.fill(text_of[ids[0]])
    text = example.text if query.side == "pair" else replaced
    text_pair = replaced if query.side == "pair" else example.text_pair
    return Candidate(f"n{ids[0]}{query.place}", example.id, text, text_pair, SOURCE, float(score))
