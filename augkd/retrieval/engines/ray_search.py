"""A retriever whose searches are shared out among the workers of a Ray cluster.

A search is cut where a search on one machine cuts it too, so scores and ids are the same. What fits into one such block
is answered here: it would have to wait for one worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from augkd.models.cluster import Cluster
from augkd.models.shipped_files import ShippedFolder
from augkd.retrieval.engines.ray import ShippedEncoder
from augkd.retrieval.manifest import encoder_options, is_lexical
from augkd.retrieval.retriever import Blockwise, Hits, Retriever
from augkd.workspace.folders import CACHE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.workspace.manifest_kinds import IndexManifest
    from augkd.workspace.progress import Steps

Query = tuple[list[str], int, bool]  # texts, k, whether vectors are wanted


def on_cluster(retriever: Retriever, cluster: Cluster) -> Retriever:
    """`retriever` with its long searches done by the workers of `cluster`, where they can be cut into blocks."""
    return RayRetriever(retriever, cluster) if isinstance(retriever, Blockwise) else retriever


@final
class RayRetriever:
    """`retriever`, with the same answers, given by the workers of `cluster`."""

    def __init__(self, retriever: Blockwise, cluster: Cluster) -> None:
        self._retriever, self._cluster = retriever, cluster

    @property
    def folder(self) -> Path:
        """The folder of the index."""
        return self._retriever.folder

    @property
    def manifest(self) -> IndexManifest:
        """The manifest of the index."""
        return self._retriever.manifest

    @property
    def bounded(self) -> bool:
        """True where scores are cosines."""
        return self._retriever.bounded

    def __len__(self) -> int:
        return len(self._retriever)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """Vectors of queries in the space of a dense index."""
        vectors: NDArray[np.float32] = self._retriever.encode(texts)  # type: ignore[attr-defined]
        return vectors

    def search(
        self, texts: Sequence[str], k: int, *, vectors: bool = False, progress: Steps | None = None
    ) -> Hits:  # (len(texts), k)
        """The `k` nearest corpus texts of each text; `progress` counts queries."""
        block = self._retriever.block(k, vectors)
        if len(texts) <= block:
            return self._retriever.search(texts, k, vectors=vectors, progress=progress)
        parts = [list(texts[start : start + block]) for start in range(0, len(texts), block)]
        found, done = [], 0
        for hits in self._pool().ordered((part, k, vectors) for part in parts):
            found.append(Hits(*hits))
            done += len(found[-1].ids)
            if progress is not None:
                progress(done, len(texts))
        return Hits(
            np.concatenate([hits.scores for hits in found]),
            np.concatenate([hits.ids for hits in found]),
            np.concatenate([hits.vectors for hits in found if hits.vectors is not None]) if vectors else None,
        )

    def search_average(
        self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False, progress: Steps | None = None
    ) -> Hits:  # (len(groups), k)
        """The `k` corpus texts nearest to each group as a whole, found here: there are as many groups as classes."""
        return self._retriever.search_average(groups, k, vectors=vectors, progress=progress)

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order."""
        return self._retriever.texts(ids)

    def _pool(self) -> Any:
        encoder = None
        if not is_lexical(self.manifest):
            encoder = ShippedEncoder.of(self._cluster, encoder_options(self.manifest))
        return self._cluster.pool(make_search, self._cluster.ship(self.folder), encoder, self._cluster.threads)


def make_search(
    index: ShippedFolder, encoder: ShippedEncoder | None, threads: int
) -> Callable[[Query], tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32] | None]]:
    """On a worker: a function from queries to scores, ids and, where wanted, vectors."""
    import faiss

    from augkd.retrieval.open import open_retriever

    folder = index.open()
    faiss.omp_set_num_threads(threads)

    def load(options: Mapping[str, Any]) -> Any:
        assert encoder is not None, "a lexical index loads none"
        return encoder.load(options, folder / CACHE)

    retriever = open_retriever(folder, load)

    def search(query: Query) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32] | None]:
        texts, k, vectors = query
        hits = retriever.search(texts, k, vectors=vectors)
        return hits.scores, hits.ids, hits.vectors

    return search
