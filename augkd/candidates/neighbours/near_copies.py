"""Evaluation texts kept out of what an index gives back, in other words too.

A student that trains on a paraphrase of a test question is tested on what it was taught. The index is asked once for
what lies next to every evaluation text; what is too close, or equal when folded, never becomes a candidate. What was
withheld is kept, so that a threshold can be judged by its catch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from augkd.data.cleaning import normalised
from augkd.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.retriever import Retriever

# TREC's 1046 validation and test questions against 326 000 corpus questions, MiniLM-L6, pairs read by eye:
# cosine >= 0.98 caught 3, >= 0.95 31, and all but 3 of these ask for the same thing in other words ("What province is
# Montreal in?"); 0.93 to 0.95 (27) mostly do; 0.90 to 0.93 (83) often do not ("the effect"/"causes of acid rain"),
# and a neighbour on the same subject with another question is what augmentation is for.
NEAR_COPY = 0.95
# BM25 scores have no scale, so there copies are judged by their words: shared over all distinct ones.
JACCARD = 0.8
SHOWN = 100  # withheld texts kept for inspection

_BLOCK = 1024  # evaluation texts searched together
_DEPTH = 16
_DEEPEST = 256
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Withheld:
    """A corpus text that was not given back, the evaluation text it copies, and how alike they are."""

    text: str
    evaluation_text: str
    cosine: float | None  # of a BM25 index the share of common words; None: equal when folded, and not met otherwise


@dataclass
class Guard:
    """What may not come back, by folded text; counts what it refuses."""

    evaluation: dict[str, str]  # folded -> as it is
    copies: dict[str, tuple[str, float]]  # folded corpus text -> the evaluation text next to it, likeness
    equal: dict[str, Withheld] = field(default_factory=dict)
    near: dict[str, Withheld] = field(default_factory=dict)

    def refuses(self, folded: str, text: str) -> bool:
        """Whether a corpus text is or copies an evaluation text; if so it is counted, once however often it is met."""
        copy = self.copies.get(folded)
        if folded in self.evaluation:
            known = copy[1] if copy else None
            self.equal.setdefault(folded, Withheld(text, self.evaluation[folded], known))
            return True
        if copy is None:
            return False
        self.near.setdefault(folded, Withheld(text, *copy))
        return True

    def withheld(self) -> tuple[Withheld, ...]:
        """At most 100 of the refused texts: near copies from the most doubtful on, then equal texts."""
        near = sorted(self.near.values(), key=lambda found: (found.cosine or 0.0, found.text))
        equal = sorted(self.equal.values(), key=lambda found: found.text)
        return (*near, *equal)[:SHOWN]


def make_guard(evaluation: Iterable[str], retriever: Retriever, near_copy: float = NEAR_COPY) -> Guard:
    """Asks the index for copies of the evaluation texts, each distinct one once.

    `near_copy` in (0, 1] is the cosine from which on a text is a copy; 1 disables all but equality. A BM25 index uses
    the share of common words (Jaccard), at least 0.8, instead: `near_copy` only says whether to look.
    """
    if not 0 < near_copy <= 1:
        raise RecipeError(f"neighbours near_copy is {near_copy}; give a cosine in (0, 1], 1 to refuse equal texts only")
    distinct = {folded: text for text in evaluation if (folded := normalised(text))}
    guard = Guard(distinct, {})
    if near_copy == 1:
        return guard
    texts = list(distinct.values())
    for start in range(0, len(texts), _BLOCK):
        for text, copy, likeness in _copies(texts[start : start + _BLOCK], retriever, near_copy):
            key = normalised(copy)
            if key and (key not in guard.copies or likeness > guard.copies[key][1]):
                guard.copies[key] = (text, likeness)
    return guard


def jaccard(one: str, other: str) -> float:
    """Share of the distinct words of both texts that both have; case does not count."""
    a, b = set(_WORD.findall(one.casefold())), set(_WORD.findall(other.casefold()))
    return len(a & b) / len(a | b) if a | b else 0.0


def _copies(texts: Sequence[str], retriever: Retriever, near_copy: float) -> Iterator[tuple[str, str, float]]:
    """(evaluation text, corpus text, likeness) of every copy; deeper while the deeper half of a row still holds one."""
    limit = min(len(retriever), _DEEPEST)
    depth = min(_DEPTH, limit)
    while texts:
        hits = retriever.search(texts, depth)
        found = _texts(retriever, hits.ids)
        deeper = []
        for text, scores, ids in zip(texts, hits.scores, hits.ids, strict=True):
            likeness = _likeness(text, scores, ids, found, retriever.bounded)
            copies = np.flatnonzero(likeness >= (near_copy if retriever.bounded else JACCARD))
            if len(copies) and copies[-1] >= depth // 2 and depth < limit:
                deeper.append(text)
                continue
            yield from ((text, found[int(ids[place])], float(likeness[place])) for place in copies)
        texts, depth = deeper, min(depth * 2, limit)


def _likeness(
    text: str, scores: NDArray[np.float32], ids: NDArray[np.int64], found: dict[int, str], bounded: bool
) -> NDArray[np.float32]:
    if bounded:
        return np.where(ids >= 0, scores, -np.inf).astype(np.float32)
    return np.array([jaccard(text, found[int(id_)]) if id_ >= 0 else -np.inf for id_ in ids], dtype=np.float32)


def _texts(retriever: Retriever, ids: NDArray[np.int64]) -> dict[int, str]:
    distinct = np.unique(ids[ids >= 0])
    return dict(zip(distinct.tolist(), retriever.texts(distinct), strict=True))
