"""Re-ranking: the best hits of a fast static encoder, scored again by the full model it was distilled from.

Retrieve, then re-rank (Nogueira & Cho 2019). Nearly all of the time goes into encoding candidates with the full model,
so one search encodes each distinct text once, however many queries find it: it never costs more than encoding the
whole corpus with the full model would have, up to `KEPT` distinct texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from augkd.retrieval.encoders.encoder import Encoder, encode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.workspace.progress import Steps

KEPT = 524_288  # encoded texts that a search remembers: 800 MB of vectors at 384 dimensions
CANDIDATES_AT_ONCE = 131_072  # per block of queries: 200 MB of vectors at 384 dimensions


def block_size(depth: int) -> int:
    """How many queries, each with `depth` candidates, are re-ranked together."""
    return max(1, CANDIDATES_AT_ONCE // depth)


def texts_to_rerank(queries: int, depth: int, corpus: int) -> int:
    """The most texts that re-ranking `queries` queries to `depth` puts through the full model.

    A corpus of `corpus` texts would take the full model that many texts to index, so the ratio of the two says what
    re-ranking costs beside a full encode. Up to `KEPT` texts that is the queries and each text once; of a larger
    corpus, a block of queries can meet texts again that were forgotten. The true number is lower where queries share
    neighbours.
    """
    if depth < 1:
        return 0
    if min(queries * depth, corpus) <= KEPT:
        return queries + min(queries * depth, corpus)
    size = block_size(depth)
    whole, rest = divmod(queries, size)
    return queries + whole * min(size * depth, corpus) + min(rest * depth, corpus)


class Rescorer:
    """The re-ranker in one search: scores block after block of queries, and remembers the texts it has encoded."""

    def __init__(self, reranker: Encoder, texts_of: Callable[[NDArray[np.int64]], Sequence[str]]) -> None:
        self.encoder, self._texts_of = reranker, texts_of
        self._slots: dict[str, int] = {}
        self._vectors = np.empty((0, 0), np.float32)  # (capacity, dim); the first len(_slots) rows are in use

    def scores(
        self,
        queries: NDArray[np.float32],  # (n, dim of the re-ranker)
        ids: NDArray[np.int64],  # (n, depth), -1 where there are fewer
        progress: Steps | None = None,  # in candidate texts
    ) -> NDArray[np.float32]:  # (n, depth)
        """The re-ranker's cosines of each query and its candidates."""
        distinct, places = np.unique(ids, return_inverse=True)
        texts = self._texts_of(np.maximum(distinct, 0))  # -1, FAISS's padding, gets a score that is never read
        self._encode(texts, progress)
        slot_of = np.array([self._slots[text] for text in texts])[places.reshape(ids.shape)]
        # einsum, not BLAS: there a row's rounding depends on its position, and equal texts would not tie
        rows = zip(queries, slot_of, strict=True)
        return np.stack([np.einsum("wd,d->w", self._vectors[row], query) for query, row in rows])

    def _encode(self, texts: Sequence[str], progress: Steps | None) -> None:
        """Encodes those texts that are not remembered; forgets all when there would be too many."""
        new = [text for text in dict.fromkeys(texts) if text not in self._slots]
        if len(self._slots) + len(new) > KEPT:
            self._slots, new = {}, list(dict.fromkeys(texts))
        if not new:
            return
        vectors, used = encode(self.encoder, new, progress), len(self._slots)
        if used + len(new) > len(self._vectors):
            grown = np.empty((max(used + len(new), 2 * used), vectors.shape[1]), np.float32)
            grown[:used] = self._vectors[:used].reshape(used, vectors.shape[1])
            self._vectors = grown
        self._vectors[used : used + len(new)] = vectors
        self._slots.update({text: slot for slot, text in enumerate(new, used)})
