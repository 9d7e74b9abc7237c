"""One interface for every index: texts in, the nearest texts of the corpus out.

Code that looks for neighbours need not know which kind of index finds them: vectors with FAISS, or words with BM25.
Hits are sorted by score, then id, since FAISS leaves ties in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from augkd.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.workspace.manifest_kinds import IndexManifest
    from augkd.workspace.progress import Steps


QUERIES_AT_ONCE = 4096  # encoded and searched together: bounds memory, and what a worker of a cluster gets


@dataclass(frozen=True)
class Hits:
    """The hits of each query, best first; equal scores in order of id."""

    scores: NDArray[np.float32]  # (queries, k), -inf where there are fewer
    ids: NDArray[np.int64]  # (queries, k), -1 where there are fewer
    vectors: NDArray[np.float32] | None  # (queries, k, dim) unit rows as the index stores them, if requested


class Retriever(Protocol):
    """Finds the texts of a corpus that are most similar to given texts."""

    @property
    def folder(self) -> Path:
        """The folder of the index."""
        ...

    @property
    def manifest(self) -> IndexManifest:
        """The manifest of the index."""
        ...

    @property
    def bounded(self) -> bool:
        """True where scores are cosines, so that distances and thresholds mean something."""
        ...

    def __len__(self) -> int:
        """Texts in the corpus."""
        ...

    def search(
        self, texts: Sequence[str], k: int, *, vectors: bool = False, progress: Steps | None = None
    ) -> Hits:  # (len(texts), k)
        """The `k` nearest corpus texts of each text; `progress` counts queries and changes no result."""
        ...

    def search_average(
        self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False, progress: Steps | None = None
    ) -> Hits:  # (len(groups), k)
        """The `k` corpus texts nearest to each group as a whole, one query per group; `progress` counts groups."""
        ...

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order."""
        ...


@runtime_checkable
class Blockwise(Retriever, Protocol):
    """A retriever whose long searches are made of blocks that do not depend on each other."""

    def block(self, k: int, vectors: bool) -> int:
        """How many queries of a search with these arguments are answered together."""
        ...


def best_first(
    scores: NDArray[np.float32],  # (n, depth)
    ids: NDArray[np.int64],  # (n, depth), -1 where there are fewer
    vectors: NDArray[np.float32] | None,  # (n, depth, dim)
    k: int,
) -> Hits:
    """The `k` best of each row by score, then id; rows without that many end in -inf, -1 and zero vectors."""
    scores = np.where(ids < 0, -np.inf, scores).astype(np.float32, copy=False)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    ids = np.take_along_axis(ids, order, axis=1)
    if vectors is not None:
        vectors = np.where(ids[:, :, None] < 0, np.float32(0), np.take_along_axis(vectors, order[:, :, None], axis=1))
    return Hits(np.take_along_axis(scores, order, axis=1), ids, vectors)


def no_hits(count: int, k: int, dim: int | None = None) -> Hits:
    """Empty hits for `count` queries; with zero vectors if `dim` is given."""
    vectors = None if dim is None else np.zeros((count, k, dim), dtype=np.float32)
    return Hits(np.full((count, k), -np.inf, dtype=np.float32), np.full((count, k), -1, dtype=np.int64), vectors)


def check_k(k: int) -> None:
    """Raises RecipeError for a `k` below 1."""
    if k < 1:
        raise RecipeError(f"neighbours k is {k}; give at least 1")


def check_groups(groups: Sequence[Sequence[str]]) -> None:
    """Raises RecipeError for a group without a text."""
    empty = next((number for number, group in enumerate(groups) if not group), None)
    if empty is not None:
        raise RecipeError(f"group {empty} of {len(groups)} has no text to average; leave it out")
