"""Candidates from an index: for each example the texts that are like it.

Queries say what is looked up and where a neighbour goes (queries.py), the search what is usable (nearest.py), the
choice what is taken (choosing.py); here it becomes candidates. By default an example gets its own nearest texts, one
side of a pair replaced at a time (Kamalloo et al. 2021, "Not Far Away, Not So Close").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from augkd.candidates.candidate import Candidate as Candidate
from augkd.candidates.neighbours.choosing import Chosen, Search, near_averages, near_examples, near_pairs
from augkd.candidates.neighbours.near_copies import NEAR_COPY, Withheld, make_guard
from augkd.candidates.neighbours.nearest import Rules
from augkd.candidates.neighbours.queries import check_classes, with_sentences
from augkd.errors import RecipeError, did_you_mean
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.data.task import Example
    from augkd.retrieval.retriever import Retriever

__all__ = ["SOURCE", "Candidate", "Found", "Neighbour", "Withheld", "find_neighbours", "teacher_distance"]

SOURCE = "neighbours"
QUERIES = ("example", "label", "task", "mix")
UNITS = ("text", "sentence")
PAIRS = ("each", "unit", "both")
_WRITTEN = 4096  # examples whose texts are read together


@dataclass(frozen=True)
class Neighbour:
    """A text of the index and its cosine to the query."""

    id: int
    text: str
    score: float


@dataclass(frozen=True)
class Found:
    """The candidates, and what was kept from them."""

    candidates: list[list[Candidate]]  # per example, best first
    excluded_evaluation_texts: int  # distinct corpus texts withheld: equal to an evaluation text when folded
    short: int  # examples with fewer than k
    excluded_near_copies: int = 0  # distinct corpus texts withheld: an evaluation text in other words
    withheld: tuple[Withheld, ...] = ()  # at most 100 of both, the most doubtful first


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
    seed: int = 0,
    progress: Steps | None = None,
) -> Found:
    """`k` usable texts of the corpus for each example, best first.

    `evaluation` holds the validation and test texts as they are; texts equal to one when folded, or with a cosine of
    `near_copy` and more to one, never come back (1 disables the latter). `queries`: looked up is each `example`, or the
    average of its class (`label`) or of the `task`, dealt out to the most similar examples, or half and half
    (`mix`, the odd one to the example). `unit` `sentence`: a neighbour replaces one sentence of a text, split by the
    rules of `language`. `pairs`: a neighbour replaces one side (`each`), two replace both (`unit`), or half and half.
    `diversity` in [0, 1] weighs unlikeness to other neighbours (MMR; 0 disables). `unique`: a text has one owner.
    Distances are 1 - cosine to the replaced text, so 0 to 2; the defaults disable both bounds. `seed` decides who is
    dealt what from an average where scores are not cosines. Raises RecipeError for options that do not go together,
    DataError where `label` meets an example without a class.
    """
    _check(k, queries, unit, pairs, diversity, min_distance, max_distance)
    _check_fit(examples, retriever, queries, pairs, diversity, max_distance - min_distance < 2)
    guarded = with_sentences(evaluation, language) if unit == "sentence" else evaluation
    guard = make_guard(guarded, retriever, near_copy)
    rules = Rules(guard, min_distance, max_distance)
    search = Search(examples, retriever, rules, unit, language, diversity, unique, np.random.default_rng(seed))

    chosen: list[Chosen] = []
    parts = _parts(queries, pairs, k)
    for number, (by, part_k) in enumerate(parts):
        told = _telling(progress, number * len(examples), len(parts) * len(examples))
        if by == "example":
            chosen += near_examples(search, part_k, told)
        elif by == "unit":
            chosen += near_pairs(search, part_k, told)
        else:
            chosen += near_averages(search, part_k, by, chosen, told)

    candidates = _candidates(examples, chosen, retriever)
    short = sum(len(found) < k for found in candidates)
    return Found(candidates, len(guard.equal), short, len(guard.near), guard.withheld())


def teacher_distance(
    original: NDArray[np.float32],  # (n, outputs) logits
    candidate: NDArray[np.float32],  # (n, outputs) logits
) -> NDArray[np.float64]:  # (n,)
    """How far the teacher sees each candidate from its original: total variation of the softmaxes, 0 to 1.

    Half the sum of the absolute differences: the mass that moved from one class to others. Of one output (regression)
    the absolute difference, in the units of the labels.
    """
    if original.shape[1] == 1:
        return np.abs(candidate[:, 0].astype(np.float64) - original[:, 0])
    return np.asarray(np.abs(_softmax(candidate) - _softmax(original)).sum(axis=1) / 2)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


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
            f"neighbours min_distance {min_distance}, max_distance {max_distance}: need 0 <= min <= max <= 2"
        )
    if not 0 <= diversity <= 1:
        raise RecipeError(f"neighbours diversity is {diversity}; give a weight from 0 (off) to 1")
    if pairs != "each" and (queries, unit, diversity) != ("example", "text", 0):
        raise RecipeError(
            f"neighbours pairs {pairs!r} goes with queries 'example', unit 'text' and diversity 0 only; "
            f"here they are {queries!r}, {unit!r} and {diversity}"
        )


def _check_fit(
    examples: Sequence[Example], retriever: Retriever, queries: str, pairs: str, diversity: float, bounds: bool
) -> None:
    """Raises where the options ask for what the examples or the index do not have."""
    if (diversity or bounds) and not retriever.bounded:
        wrong = "diversity" if diversity else "min_distance and max_distance"
        raise RecipeError(
            f"neighbours {wrong} cannot be used with the lexical index {retriever.folder}: BM25 scores are no cosines; "
            "leave it out or build a dense index"
        )
    single = next((example for example in examples if example.text_pair is None), None)
    if pairs != "each" and single is not None:
        raise RecipeError(f"neighbours pairs is {pairs!r}, but example {single.id!r} is a single text; leave it out")
    if queries in ("label", "mix"):
        check_classes(examples)


def _parts(queries: str, pairs: str, k: int) -> list[tuple[str, int]]:
    """What is searched by, and for how many each: `mix` and `both` halve k, the odd one to the first."""
    if queries == "mix":
        parts = [("example", k - k // 2), ("label", k // 2)]
    elif pairs == "both":
        parts = [("example", k - k // 2), ("unit", k // 2)]
    else:
        parts = [("unit" if pairs == "unit" else queries, k)]
    return [(by, share) for by, share in parts if share]


def _telling(progress: Steps | None, start: int, total: int) -> Callable[[int], None]:
    """Tells `progress` of the examples done in one part of several."""
    return lambda done: None if progress is None else progress(start + done, total)


def _candidates(examples: Sequence[Example], chosen: Sequence[Chosen], retriever: Retriever) -> list[list[Candidate]]:
    """What was chosen as candidates of its examples, best first, whatever side it stands on; ties by id, then place."""
    by_row: list[list[Chosen]] = [[] for _ in examples]
    for some in chosen:
        by_row[some.query.row].append(some)
    candidates: list[list[Candidate]] = []
    for start in range(0, len(examples), _WRITTEN):
        rows = by_row[start : start + _WRITTEN]
        ids = sorted({id_ for row in rows for some in row for id_ in some.ids.ravel().tolist()})
        texts = dict(zip(ids, retriever.texts(ids) if ids else (), strict=True))
        for example, row in zip(examples[start : start + _WRITTEN], rows, strict=True):
            made = [
                (-float(score), ids.tolist(), some.query.place, _candidate(example, some, ids.tolist(), score, texts))
                for some in row
                for ids, score in zip(some.ids, some.scores, strict=True)
            ]
            candidates.append([candidate for *_, candidate in sorted(made, key=lambda entry: entry[:3])])
    return candidates


def _candidate(example: Example, some: Chosen, ids: Sequence[int], score: float, texts: Mapping[int, str]) -> Candidate:
    query = some.query
    if query.side == "unit":
        first, second = ids
        id_ = f"n{first}-n{second}"
        return Candidate(id_, example.id, texts[first], texts[second], SOURCE, float(score))
    replaced = query.filled(texts[ids[0]])
    text = example.text if query.side == "pair" else replaced
    text_pair = replaced if query.side == "pair" else example.text_pair
    return Candidate(f"n{ids[0]}{query.place}", example.id, text, text_pair, SOURCE, float(score))
