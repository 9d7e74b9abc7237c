"""Keeps evaluation texts out of what an index returns, including their near copies.

A student that trains on a paraphrase of a test question is tested on what it was taught. The index is searched once
for every evaluation text; what is too close, or equal when normalised, never becomes a candidate. The withheld texts
are kept, so that the threshold can be judged by what it caught.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from augkd.candidates.neighbours.progress import Block
from augkd.data.cleaning import normalised
from augkd.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.retriever import Retriever
    from augkd.workspace.progress import Steps

# TREC's 1046 validation and test questions against 326 000 corpus questions, MiniLM-L6, pairs read by eye:
# cosine >= 0.98 caught 3, >= 0.95 31, and all but 3 of these ask for the same thing in other words ("What province is
# Montreal in?"); 0.93 to 0.95 (27) mostly do; 0.90 to 0.93 (83) often do not ("the effect"/"causes of acid rain"),
# and a neighbour on the same subject with another question is what augmentation is for.
NEAR_COPY = 0.95
# BM25 scores have no scale, so copies there are recognised by their words: common ones over all distinct ones.
JACCARD = 0.8
SHOWN = 100  # withheld texts kept for inspection

_BLOCK = 1024  # evaluation texts searched together
_DEPTH = 16
_DEEPEST = 256
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class WithheldText:
    """A corpus text that was withheld, the evaluation text it copies, and how similar they are."""

    text: str
    evaluation_text: str
    cosine: float | None  # for a BM25 index the share of common words; None: equal when normalised, not measured


@dataclass
class Guard:
    """Rejects corpus texts that are or copy evaluation texts, and counts them; texts are compared normalised."""

    evaluation: dict[str, str]  # normalised -> as it is
    copies: dict[str, tuple[str, float]]  # normalised corpus text -> the nearest evaluation text, similarity
    equal: dict[str, WithheldText] = field(default_factory=dict)
    near: dict[str, WithheldText] = field(default_factory=dict)

    def rejects(self, key: str, text: str) -> bool:
        """Whether the corpus text `text`, normalised `key`, may not come back; counted once however often it is met."""
        copy = self.copies.get(key)
        if key in self.evaluation:
            similarity = copy[1] if copy else None
            self.equal.setdefault(key, WithheldText(text, self.evaluation[key], similarity))
            return True
        if copy is None:
            return False
        self.near.setdefault(key, WithheldText(text, *copy))
        return True

    def withheld(self) -> tuple[WithheldText, ...]:
        """At most 100 of the rejected texts: near copies, least similar first, then equal texts."""
        near = sorted(self.near.values(), key=lambda copy: (copy.cosine or 0.0, copy.text))
        equal = sorted(self.equal.values(), key=lambda copy: copy.text)
        return (*near, *equal)[:SHOWN]


def distinct_texts(evaluation: Iterable[str]) -> dict[str, str]:
    """The evaluation texts by their normalised form, one of each."""
    return {key: text for text in evaluation if (key := normalised(text))}


def make_guard(
    evaluation: dict[str, str],  # as `distinct_texts` gives them
    retriever: Retriever,
    near_copy: float = NEAR_COPY,
    progress: Block | None = None,
) -> Guard:
    """Searches the index for near copies of the evaluation texts.

    `near_copy` in (0, 1] is the cosine from which a text is a copy; 1 disables all but equality. A BM25 index uses the
    share of common words (Jaccard), at least 0.8, instead; there `near_copy` only says whether to search.
    `progress` counts evaluation texts.
    """
    guard = Guard(evaluation, {})
    if near_copy == 1:
        return guard
    texts = list(evaluation.values())
    for start in range(0, len(texts), _BLOCK):
        block = texts[start : start + _BLOCK]
        step = None if progress is None else progress.block(start, len(block))
        for text, copy, similarity in _copies(block, retriever, near_copy, step):
            key = normalised(copy)
            if key and (key not in guard.copies or similarity > guard.copies[key][1]):
                guard.copies[key] = (text, similarity)
        if step is not None:
            step.finish()
    return guard


def check_near_copy(near_copy: float) -> None:
    """Raises RecipeError for a threshold outside (0, 1]."""
    if not 0 < near_copy <= 1:
        raise RecipeError(
            f"neighbours near_copy is {near_copy}; give a cosine in (0, 1], or 1 to reject equal texts only"
        )


def jaccard(first: str, second: str) -> float:
    """The share of the distinct words of both texts that they have in common; case does not count."""
    a, b = _words(first), _words(second)
    return len(a & b) / len(a | b) if a | b else 0.0


def _words(text: str) -> set[str]:
    r"""Runs of letters, digits and the marks on them, and each symbol; in ASCII the same as `\w+`."""
    text = unicodedata.normalize("NFC", text.casefold())
    if text.isascii():
        return set(_WORD.findall(text))
    return set("".join(map(_spaced, text)).split())


def _spaced(char: str) -> str:
    kind = unicodedata.category(char)
    if char.isalnum() or char == "_" or kind[0] == "M":
        return char
    return f" {char} " if kind == "So" else " "  # emoji are words of their own


def _copies(
    texts: Sequence[str], retriever: Retriever, near_copy: float, progress: Steps | None
) -> Iterator[tuple[str, str, float]]:
    """(evaluation text, corpus text, similarity) of every copy; deeper while the deeper half of a row still has one."""
    limit = min(len(retriever), _DEEPEST)
    depth = min(_DEPTH, limit)
    while texts:
        hits = retriever.search(texts, depth, progress=progress)
        text_of = _texts_by_id(retriever, hits.ids)
        deeper = []
        for text, scores, ids in zip(texts, hits.scores, hits.ids, strict=True):
            similarity = _similarity(text, scores, ids, text_of, retriever.bounded)
            copies = np.flatnonzero(similarity >= (near_copy if retriever.bounded else JACCARD))
            if len(copies) and copies[-1] >= depth // 2 and depth < limit:
                deeper.append(text)
                continue
            yield from ((text, text_of[int(ids[place])], float(similarity[place])) for place in copies)
        texts, depth, progress = deeper, min(depth * 2, limit), None


def _similarity(
    text: str, scores: NDArray[np.float32], ids: NDArray[np.int64], text_of: dict[int, str], bounded: bool
) -> NDArray[np.float32]:
    if bounded:
        return np.where(ids >= 0, scores, -np.inf).astype(np.float32)
    return np.array([jaccard(text, text_of[int(id_)]) if id_ >= 0 else -np.inf for id_ in ids], dtype=np.float32)


def _texts_by_id(retriever: Retriever, ids: NDArray[np.int64]) -> dict[int, str]:
    distinct = np.unique(ids[ids >= 0])
    return dict(zip(distinct.tolist(), retriever.texts(distinct), strict=True))
