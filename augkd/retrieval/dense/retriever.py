"""A FAISS index together with the encoder it was built with, and an optional re-ranker.

Queries are answered in blocks whose size depends only on what is searched for, never on whether progress is reported
or who answers a block: a sentence model's vectors depend, by rounding, on what else is in a batch; results must not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from augkd.errors import RecipeError
from augkd.retrieval.dense.rerank import Rescorer, block_size
from augkd.retrieval.dense.search import Index
from augkd.retrieval.encoders.encoder import Encoder, encode, for_queries
from augkd.retrieval.retriever import QUERIES_AT_ONCE, Hits, best_first, check_groups, check_k, no_hits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.workspace.manifest_kinds import DenseManifest
    from augkd.workspace.progress import Steps

    # encodes the queries of some rows; reports in queries
    EncodeRows = Callable[[Encoder, slice, Steps | None], NDArray[np.float32]]

_AVERAGED = 16_384  # texts of a group encoded together


@final
class DenseRetriever:
    """An index of vectors with the encoder it was built with, and an optional re-ranker.

    With a re-ranker, the index returns the best max(k, `rerank`) texts, and of these the k with the highest cosine by
    the re-ranker are kept, with that cosine. `rerank` 0 only reorders the k texts that the index returns.
    """

    def __init__(self, index: Index, encoder: Encoder, *, reranker: Encoder | None = None, rerank: int = 0) -> None:
        if rerank < 0 or (rerank > 0 and reranker is None):
            raise RecipeError(f"encoder rerank is {rerank}; give 0, or a depth like 100 and a re-ranker")
        self._index = index
        self._queries = for_queries(encoder)
        self._reranker = reranker
        self._rerank = rerank

    @property
    def folder(self) -> Path:
        """The folder of the index."""
        return self._index.folder

    @property
    def manifest(self) -> DenseManifest:
        """The manifest of the index."""
        return self._index.manifest

    @property
    def bounded(self) -> bool:
        """True: scores are cosines."""
        return True

    def __len__(self) -> int:
        return len(self._index)

    def block(self, k: int, vectors: bool) -> int:
        """How many queries are answered together: as many as the candidates to re-score or to return allow."""
        limited = self._reranker is not None or vectors
        return min(QUERIES_AT_ONCE, block_size(max(k, self._rerank))) if limited else QUERIES_AT_ONCE

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """Vectors of queries in the space of the index, which is not that of a re-ranker."""
        return self._queries.encode(texts)

    def search(
        self, texts: Sequence[str], k: int, *, vectors: bool = False, progress: Steps | None = None
    ) -> Hits:  # (len(texts), k)
        """The `k` nearest corpus texts of each text, by cosine; `progress` counts queries."""

        def encode_rows(encoder: Encoder, rows: slice, report: Steps | None) -> NDArray[np.float32]:
            return encode(encoder, texts[rows], report)

        return self._search(len(texts), k, encode_rows, vectors, progress)

    def search_average(
        self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False, progress: Steps | None = None
    ) -> Hits:  # (len(groups), k)
        """The `k` texts nearest to the mean vector of each group (label average: Du et al. 2021, SentAugment).

        A re-ranker compares with the mean of its own vectors. `progress` counts groups. Raises RecipeError for a group
        without a text.
        """
        check_groups(groups)

        def encode_rows(encoder: Encoder, rows: slice, report: Steps | None) -> NDArray[np.float32]:
            return _averages(encoder, groups[rows], report)

        return self._search(len(groups), k, encode_rows, vectors, progress)

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order; raises IndexError for an id that does not exist."""
        return self._index.texts(ids)

    def _search(
        self, count: int, k: int, encode_rows: EncodeRows, vectors: bool, progress: Steps | None
    ) -> Hits:  # (count, k)
        """Answers `count` queries, a block at a time."""
        check_k(k)
        depth, size = max(k, self._rerank), self.block(k, vectors)
        rescorer = None
        if self._reranker is not None:
            rescorer = Rescorer(self._reranker, self._index.texts)
        blocks = []
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            report = _within(progress, rows, count)
            blocks.append(self._search_block(rows, k, depth, encode_rows, vectors, rescorer, report))
            if progress is not None:
                progress(rows.stop, count)
        if not blocks:
            return no_hits(0, k, self._index.dim if vectors else None)
        stored = [block.vectors for block in blocks if block.vectors is not None]
        return Hits(
            np.concatenate([block.scores for block in blocks]),
            np.concatenate([block.ids for block in blocks]),
            np.concatenate(stored) if stored else None,
        )

    def _search_block(
        self,
        rows: slice,
        k: int,
        depth: int,
        encode_rows: EncodeRows,
        vectors: bool,
        rescorer: Rescorer | None,
        progress: Steps | None,
    ) -> Hits:  # (rows, k)
        queries = encode_rows(self._queries, rows, progress if rescorer is None else None)
        stored = None
        if vectors:
            scores, ids, stored = self._index.search_and_reconstruct(queries, depth)
        else:
            scores, ids = self._index.search(queries, depth)
        if rescorer is not None:
            queries = encode_rows(for_queries(rescorer.encoder), rows, None)
            scores = rescorer.scores(queries, ids, progress)
        return best_first(scores, ids, stored, k)


def _within(progress: Steps | None, rows: slice, count: int) -> Steps | None:
    """Progress through the texts of one block, reported as queries; the last is done only with the whole block."""
    if progress is None:
        return None

    def report(done: int, total: int | None) -> None:
        if total:
            progress(rows.start + min((rows.stop - rows.start) * done // total, rows.stop - rows.start - 1), count)

    return report


def _averages(
    encoder: Encoder, groups: Sequence[Sequence[str]], progress: Steps | None
) -> NDArray[np.float32]:  # (groups, dim), unit rows
    means = []
    done, total = 0, sum(map(len, groups))
    for group in groups:
        means.append(_sum(encoder, group, _after(progress, done, total)) / len(group))
        done += len(group)
    lengths = np.linalg.norm(np.stack(means), axis=1, keepdims=True)
    return np.asarray(np.stack(means) / np.maximum(lengths, 1e-12), dtype=np.float32)  # opposite texts cancel to zero


def _sum(encoder: Encoder, texts: Sequence[str], progress: Steps | None) -> NDArray[np.float64]:  # (dim,)
    total = np.float64(0)
    for start in range(0, len(texts), _AVERAGED):
        vectors = encode(encoder, texts[start : start + _AVERAGED], _after(progress, start, len(texts)))
        total = total + vectors.sum(axis=0, dtype=np.float64)
    return np.asarray(total)


def _after(progress: Steps | None, before: int, total: int) -> Steps | None:
    """Progress through a part that comes after `before` texts of `total`."""
    return None if progress is None else lambda done, _: progress(before + done, total)
