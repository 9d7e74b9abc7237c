"""Re-ranking: the best hits of a fast static encoder, scored again by the full model it was distilled from.

Retrieve, then re-rank (Nogueira & Cho 2019). Nearly all of the time goes into encoding candidates with the full model,
so a block of queries shares its candidates, and each distinct text of a block is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from augkd.retrieval.encoders.encoder import Encoder, encode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.workspace.progress import Steps

CANDIDATES_AT_ONCE = 131_072  # per block of queries: 200 MB of vectors at 384 dimensions


def block_size(depth: int) -> int:
    """How many queries, each with `depth` candidates, are re-ranked together."""
    return max(1, CANDIDATES_AT_ONCE // depth)


def texts_to_rerank(queries: int, depth: int, corpus: int) -> int:
    """The most texts that re-ranking `queries` queries to `depth` puts through the full model.

    A corpus of `corpus` texts would take the full model that many texts to index, so the ratio of the two says what
    re-ranking costs beside a full encode; above 1, indexing with the full model is cheaper. A block of q queries has at
    most min(q · depth, corpus) distinct candidates, plus the queries themselves. The true number is lower where queries
    share neighbours.
    """
    if depth < 1:
        return 0
    size = block_size(depth)
    whole, rest = divmod(queries, size)
    return queries + whole * min(size * depth, corpus) + min(rest * depth, corpus)


def rescore(
    reranker: Encoder,
    queries: NDArray[np.float32],  # (n, dim of the re-ranker)
    ids: NDArray[np.int64],  # (n, depth), -1 where there are fewer
    texts_of: Callable[[NDArray[np.int64]], Sequence[str]],
    progress: Steps | None = None,  # in candidate texts
) -> NDArray[np.float32]:  # (n, depth)
    """The re-ranker's cosines of each query and its candidates."""
    distinct, places = np.unique(ids, return_inverse=True)
    texts = texts_of(np.maximum(distinct, 0))  # -1, FAISS's padding, gets a score that is never read
    slots = {text: slot for slot, text in enumerate(dict.fromkeys(texts))}
    candidates = encode(reranker, list(slots), progress)
    slot_of = np.array([slots[text] for text in texts])[places.reshape(ids.shape)]
    # einsum, not BLAS: there a row's rounding depends on its position, and equal texts would not tie
    rows = zip(queries, slot_of, strict=True)
    return np.stack([np.einsum("wd,d->w", candidates[row], query) for query, row in rows])
