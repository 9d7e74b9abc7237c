"""Held-out queries: corpus vectors with their true neighbours, to measure recall with.

They are kept out of the training sample, and stay in the index folder (`held_out_queries.safetensors`), since an index
that texts are later added to or removed from has no exact vectors left to measure against.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from augkd.errors import IndexFolderError
from augkd.retrieval.manifest import check_index
from augkd.retrieval.spool import Spool
from augkd.workspace.files import replacing
from augkd.workspace.fingerprints import file_fingerprint
from augkd.workspace.manifest_kinds import DenseManifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECALL_AT = 10
RECALL = f"recall@{RECALL_AT}"  # its name in a manifest
KEY = "held_out_queries"  # in a manifest, and of the file's name
DEPTH = 40  # true neighbours kept per query: removals may take 30 of them before a query is dropped


@dataclass(frozen=True, eq=False)
class HeldOutQueries:
    """Held-out corpus vectors and their true neighbours."""

    vectors: NDArray[np.float32]  # (n, dim) unit rows
    own: NDArray[np.int64]  # (n,) id of each query's own text, which does not count as its neighbour
    ids: NDArray[np.int64]  # (n, depth) the true neighbours, best first, -1 where there are fewer
    scores: NDArray[np.float32]  # (n, depth) their cosines

    def __len__(self) -> int:
        return len(self.own)


def find_true_neighbours(spool: Spool, own: NDArray[np.int64]) -> HeldOutQueries:
    """The texts with ids `own` (ascending) as held-out queries, by brute force over one part of the spool at a time."""
    vectors = spool.take(own).astype(np.float16).astype(np.float32)  # as they will be stored
    empty = np.full((len(own), DEPTH), -1, dtype=np.int64)
    queries = HeldOutQueries(vectors, own, empty, np.full(empty.shape, -np.inf, dtype=np.float32))
    for part, candidates in enumerate(spool.parts()):
        queries = with_vectors(queries, candidates, part * spool.chunk)
    return queries


def with_vectors(
    queries: HeldOutQueries,
    vectors: NDArray[np.float32],  # (m, dim) unit rows
    first: int,  # id of the first of them
) -> HeldOutQueries:
    """The queries after `vectors` joined the index: they may be true neighbours too."""
    depth = min(DEPTH + 1, len(vectors))
    scores, rows = faiss.knn(queries.vectors, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
    ids = np.where(rows >= 0, rows + first, -1)
    scores = np.where((ids < 0) | (ids == queries.own[:, None]), -np.inf, scores)
    scores, ids = np.concatenate([queries.scores, scores], axis=1), np.concatenate([queries.ids, ids], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]  # stable: of equals, the lower id first
    scores, ids = np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)
    ids = np.where(np.isneginf(scores), -1, ids)
    return HeldOutQueries(queries.vectors, queries.own, ids, scores.astype(np.float32))


def without(queries: HeldOutQueries, renumbered: NDArray[np.int64]) -> HeldOutQueries:
    """The queries after a removal: `renumbered[old id]` is the new id, or -1 for a removed text.

    A query is dropped if its own text was removed, or if fewer than RECALL_AT of its true neighbours are known now.
    """
    ids = np.where(queries.ids >= 0, renumbered[np.maximum(queries.ids, 0)], -1)
    scores = np.where(ids < 0, -np.inf, queries.scores)
    order = np.argsort(ids < 0, axis=1, kind="stable")  # the removed ones last, the rest in their order
    ids, scores = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
    complete = (queries.ids < 0).any(axis=1)  # every vector of the index was among its neighbours
    kept = (renumbered[queries.own] >= 0) & (complete | ((ids >= 0).sum(axis=1) >= RECALL_AT))
    own = renumbered[queries.own[kept]]
    return HeldOutQueries(queries.vectors[kept], own, ids[kept], scores[kept].astype(np.float32))


def write_queries(folder: Path, queries: HeldOutQueries, suffix: str) -> dict[str, Any]:
    """Writes the queries of an index in `folder`; the facts about the file for the manifest."""
    path = folder / f"{KEY}{suffix}.safetensors"
    tensors: dict[str, NDArray[Any]] = {
        "queries": queries.vectors.astype(np.float16),
        "own": queries.own,
        "ids": np.ascontiguousarray(queries.ids),
        "scores": np.ascontiguousarray(queries.scores),
    }
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors))
    return {"file": path.name, "queries": len(queries), "sha256": file_fingerprint(path)}


def read_queries(folder: Path, manifest: DenseManifest) -> HeldOutQueries | None:
    """The held-out queries of an index, None for an exact one; raises IndexFolderError if the manifest disagrees."""
    recorded = manifest.held_out_queries
    if recorded is None:
        return None
    path = folder / recorded.file
    check_index(folder, manifest, [path.name])
    try:
        tensors = load_file(path)
    except SafetensorError as exc:
        raise IndexFolderError(f"{path} cannot be read ({exc}); remove the folder and build it again") from exc
    return HeldOutQueries(tensors["queries"].astype(np.float32), tensors["own"], tensors["ids"], tensors["scores"])
