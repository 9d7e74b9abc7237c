"""An index of vectors with its encoder, and a re-ranker or none.

Where the encoder is a fast static one, the best of what it finds can be scored again by the full model it was made from
(retrieve, then re-rank: Nogueira & Cho 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from augkd.errors import RecipeError
from augkd.retrieval.dense.search import Index

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.encoders.encoder import Encoder
from augkd.retrieval.retriever import Hits, best_first, check_groups, check_k, no_hits

_SLOTS = 131_072  # texts re-scored together at most: 200 MB of vectors at 384 dimensions


_AVERAGED = 16_384  # texts of a group encoded together


@final
class DenseRetriever:
    """An index of vectors with the encoder it was built with, and a re-ranker or none.

    With a re-ranker, the index gives the best max(k, `rerank`) and the k best of these by the re-ranker's cosine
    remain, with that cosine. `rerank` 0 puts the k that were found in a new order and fetches no more.
    """

    def __init__(self, index: Index, encoder: Encoder, *, reranker: Encoder | None = None, rerank: int = 0) -> None:
        if rerank < 0 or (rerank > 0 and reranker is None):
            raise RecipeError(f"encoder rerank is {rerank}; give 0, or a depth like 100 and a re-ranker")
        self._index = index
        self._encoder = encoder
        self._reranker = reranker
        self._rerank = rerank

    @property
    def folder(self) -> Path:
        """Where the index lies."""
        return self._index.folder

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What the index says about itself."""
        return self._index.manifest

    @property
    def bounded(self) -> bool:
        """True: scores are cosines."""
        return True

    def __len__(self) -> int:
        return len(self._index)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """Vectors in the space of the index, which is not that of a re-ranker."""
        return self._encoder.encode(texts)

    def search(self, texts: Sequence[str], k: int, *, vectors: bool = False) -> Hits:
        """The `k` nearest corpus texts of each text, by cosine."""
        return self._blocks(len(texts), k, lambda encoder, rows: encoder.encode(texts[rows]), vectors)

    def search_average(self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False) -> Hits:
        """The `k` texts nearest to the mean vector of each group (label average: Du et al. 2021, SentAugment).

        A re-ranker compares with the mean of its own vectors. Raises RecipeError for a group without a text.
        """
        check_groups(groups)
        return self._blocks(len(groups), k, lambda encoder, rows: _averages(encoder, groups[rows]), vectors)

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order; raises IndexError for an id that is not there."""
        return self._index.texts(ids)

    def _blocks(
        self, count: int, k: int, encode: Callable[[Encoder, slice], NDArray[np.float32]], vectors: bool
    ) -> Hits:
        """Answers `count` queries, as many at a time as the texts to re-score allow."""
        check_k(k)
        depth = max(k, self._rerank)
        size = max(1, _SLOTS // depth) if self._reranker is not None or vectors else max(1, count)
        answers = [
            self._answer(slice(start, start + size), k, depth, encode, vectors) for start in range(0, count, size)
        ]
        if not answers:
            return no_hits(0, k, self._index.dim if vectors else None)
        stored = [answer.vectors for answer in answers if answer.vectors is not None]
        return Hits(
            np.concatenate([answer.scores for answer in answers]),
            np.concatenate([answer.ids for answer in answers]),
            np.concatenate(stored) if stored else None,
        )

    def _answer(
        self, rows: slice, k: int, depth: int, encode: Callable[[Encoder, slice], NDArray[np.float32]], vectors: bool
    ) -> Hits:
        stored = None
        if vectors:
            scores, ids, stored = self._index.search_and_reconstruct(encode(self._encoder, rows), depth)
        else:
            scores, ids = self._index.search(encode(self._encoder, rows), depth)
        if self._reranker is not None:
            scores = self._rescored(encode(self._reranker, rows), ids)
        return best_first(scores, ids, stored, k)

    def _rescored(
        self,
        queries: NDArray[np.float32],  # (n, dim of the re-ranker)
        ids: NDArray[np.int64],  # (n, depth)
    ) -> NDArray[np.float32]:  # (n, depth)
        """The re-ranker's cosines; a text that was found more than once is encoded once."""
        assert self._reranker is not None
        distinct, places = np.unique(ids, return_inverse=True)
        texts = self._index.texts(np.maximum(distinct, 0))  # -1, FAISS's padding, gets a score that nobody reads
        slots = {text: slot for slot, text in enumerate(dict.fromkeys(texts))}
        candidates = self._reranker.encode(list(slots))
        slot_of = np.array([slots[text] for text in texts])[places.reshape(ids.shape)]
        # einsum, not BLAS: there a row's rounding depends on where it stands, and equal texts would not tie
        rows = zip(queries, slot_of, strict=True)
        return np.stack([np.einsum("wd,d->w", candidates[row], query) for query, row in rows])


def _averages(encoder: Encoder, groups: Sequence[Sequence[str]]) -> NDArray[np.float32]:  # (groups, dim), unit rows
    means = np.stack([_sum(encoder, group) / len(group) for group in groups])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(lengths, 1e-12), dtype=np.float32)  # opposite texts cancel to zero


def _sum(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float64]:  # (dim,)
    blocks: Iterator[Sequence[str]] = (texts[at : at + _AVERAGED] for at in range(0, len(texts), _AVERAGED))
    return np.asarray(sum(encoder.encode(block).sum(axis=0, dtype=np.float64) for block in blocks))
