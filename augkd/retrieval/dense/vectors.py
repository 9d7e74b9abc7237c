"""From encoded parts to `vectors.faiss`: sample, train, add, tune, write; two passes, one part in memory at a time.

The queries that recall is measured with are drawn first and kept out of the training sample. They stay in the folder
(`probes.safetensors`, with their true neighbours), since an index that text is later added to or removed from has no
exact vectors left to measure against.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from augkd.errors import IndexFolderError, RecipeError
from augkd.retrieval.dense import choice as factories
from augkd.retrieval.dense.choice import Effort, Probes
from augkd.retrieval.dense.size import ENCODER_SAMPLE, GRAPH_ABOVE, POINTS_PER_LIST, sample_size
from augkd.retrieval.spool import Spool
from augkd.workspace.files import replacing
from augkd.workspace.fingerprints import file_fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECALL_AT = 10
RECALL = f"recall@{RECALL_AT}"  # its name in a manifest
DEPTH = 40  # true neighbours kept per probe: removals may take 30 of them before a probe is spent
_PROBES = 1000  # standard error about 0.4 points at recall 0.95


def make_vectors(
    folder: Path,
    spool: Spool,
    factory: str,  # resolved, not auto
    recall: float,
    seed: int,
) -> dict[str, Any]:
    """Writes `vectors.faiss` (and `probes.safetensors` unless it is exact); the facts about them for the manifest.

    Raises RecipeError when FAISS refuses these vectors.
    """
    rng = np.random.default_rng(seed)
    index = factories.create(spool.dim, factory)
    own = _sample(rng, np.arange(spool.count), max(1, min(_PROBES, spool.count // 4)))
    try:
        _train(index, spool, rng, seed, own)
        _fill(index, spool)
    except RuntimeError as exc:
        raise RecipeError(
            f"faiss factory '{factory}' failed on {spool.count} vectors ({factories.reason(exc)}); use auto"
        ) from exc

    if factories.is_exact(index):
        return {"factory": factory} | write_vectors(folder, index, "", Effort(), 1.0, None)
    probes = _exact(spool, spool.take(own), own)
    effort, measured = factories.tune(index, probes, recall, RECALL_AT)
    return {"factory": factory} | write_vectors(folder, index, "", effort, measured, probes)


def write_vectors(
    folder: Path,
    index: Any,
    suffix: str,  # of the file names: '' for a build, -1, -2 … for the changes after it
    effort: Effort,
    measured: float,
    probes: Probes | None,
) -> dict[str, Any]:
    """Writes the FAISS file and the probes; the facts about them."""
    path = folder / f"vectors{suffix}.faiss"
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))
    facts: dict[str, Any] = {
        "count": int(index.ntotal),
        "dim": int(index.d),
        **effort.facts(),
        RECALL: round(measured, 4),
        "bytes_per_vector": round(path.stat().st_size / index.ntotal, 1),
        "sha256": file_fingerprint(path),
        "vectors": path.name,
    }
    if probes is not None:
        facts["probes"] = {"file": f"probes{suffix}.safetensors", "queries": len(probes)}
        facts["probes"]["sha256"] = _write_probes(folder / facts["probes"]["file"], probes)
    return facts


def _train(index: Any, spool: Spool, rng: np.random.Generator, seed: int, own: NDArray[np.int64]) -> None:
    if index.is_trained:
        return
    ivf = factories.inverted(index)
    if ivf is not None:
        ivf.cp.seed = seed
    lists = int(ivf.nlist) if ivf is not None else 0
    pool = np.setdiff1d(np.arange(spool.count), own)
    if len(pool) < max(POINTS_PER_LIST * lists, 256):  # too few texts to hold any back
        pool = np.arange(spool.count)
    sample = spool.take(_sample(rng, pool, sample_size(len(pool), lists)))
    if not isinstance(index, faiss.IndexRefine):
        index.train(sample)
        return
    index.base_index.train(sample)
    index.refine_index.train(sample[:: -(-len(sample) // ENCODER_SAMPLE)])  # its training copies what it is given
    index.is_trained = True


def _fill(index: Any, spool: Spool) -> None:
    _reserve(index, spool.count)
    ivf = factories.inverted(index)
    if ivf is None or ivf.nlist <= GRAPH_ABOVE or isinstance(index, faiss.IndexPreTransform):
        add(index, spool)
        return
    # The nearest of L lists, exactly, is n·L work, hence n^1.5; a graph over the centroids makes it n·log n. A vector,
    # on two cores with AVX-512: among 8192 lists 16 µs against 26 of the graph (64 dimensions) and 40 against 61 (384),
    # among 16,384 31 against 32 and 75 against 111. Searching compares with all of them again: a query visits many
    # lists, and a graph would miss some.
    exact, owned = ivf.quantizer, ivf.own_fields
    graph = _graph(faiss.downcast_index(exact))
    ivf.own_fields, ivf.quantizer = False, graph
    try:
        add(index, spool)
    finally:
        ivf.quantizer, ivf.own_fields = exact, owned


def _graph(centroids: Any) -> Any:
    graph = faiss.IndexHNSWFlat(centroids.d, 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efSearch = 64
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # with more, the links depend on which thread comes first
    try:
        graph.add(centroids.reconstruct_n(0, centroids.ntotal))
    finally:
        faiss.omp_set_num_threads(threads)
    return graph


def add(index: Any, spool: Spool) -> None:
    """Appends all vectors of the spool, a part at a time."""
    for vectors in spool.parts():
        index.add(vectors)


def _reserve(index: Any, count: int) -> None:
    """Room for all codes at once: a vector that doubles as it grows takes up to three times its size while it moves."""
    table = faiss.downcast_index(index.refine_index) if isinstance(index, faiss.IndexRefine) else index
    if isinstance(table, faiss.IndexFlatCodes):
        table.codes.resize(count * table.code_size)
        table.codes.resize(0)


def _sample(rng: np.random.Generator, ids: NDArray[np.int64], size: int) -> NDArray[np.int64]:  # ascending
    if size >= len(ids):
        return ids.astype(np.int64)
    return np.sort(rng.choice(ids, size, replace=False, shuffle=False)).astype(np.int64)


def _exact(spool: Spool, queries: NDArray[np.float32], own: NDArray[np.int64]) -> Probes:
    """The true neighbours of `queries` (n, dim), whose own ids are left out, by brute force over one part at a time."""
    queries = queries.astype(np.float16).astype(np.float32)  # as they will be stored
    empty = np.full((len(own), DEPTH), -1, dtype=np.int64)
    probes = Probes(queries, own, empty, np.full(empty.shape, -np.inf, dtype=np.float32))
    for part, vectors in enumerate(spool.parts()):
        probes = with_vectors(probes, vectors, part * spool.chunk)
    return probes


def with_vectors(
    probes: Probes,
    vectors: NDArray[np.float32],  # (m, dim) unit rows
    first: int,  # id of the first of them
) -> Probes:
    """The probes, with `vectors` considered too as neighbours."""
    scores, rows = faiss.knn(probes.queries, vectors, min(DEPTH + 1, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    ids = np.where(rows >= 0, rows + first, -1)
    scores = np.where((ids < 0) | (ids == probes.own[:, None]), -np.inf, scores)
    scores, ids = np.concatenate([probes.scores, scores], axis=1), np.concatenate([probes.ids, ids], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]  # stable: of equals, the lower id first
    scores, ids = np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)
    return Probes(probes.queries, probes.own, np.where(np.isneginf(scores), -1, ids), scores.astype(np.float32))


def without(probes: Probes, renumbered: NDArray[np.int64]) -> Probes:
    """The probes after a removal: `renumbered[old id]` is the new id, or -1 for what is gone.

    A probe that is itself gone, or has fewer than RECALL_AT known neighbours left of more, is dropped.
    """
    ids = np.where(probes.ids >= 0, renumbered[np.maximum(probes.ids, 0)], -1)
    scores = np.where(ids < 0, -np.inf, probes.scores)
    order = np.argsort(ids < 0, axis=1, kind="stable")  # the gone ones last, the rest in their order
    ids, scores = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
    complete = (probes.ids < 0).any(axis=1)  # every vector of the index was among its neighbours
    kept = (renumbered[probes.own] >= 0) & (complete | ((ids >= 0).sum(axis=1) >= RECALL_AT))
    return Probes(probes.queries[kept], renumbered[probes.own[kept]], ids[kept], scores[kept].astype(np.float32))


def _write_probes(path: Path, probes: Probes) -> str:
    tensors: dict[str, NDArray[Any]] = {
        "queries": probes.queries.astype(np.float16),
        "own": probes.own,
        "ids": np.ascontiguousarray(probes.ids),
        "scores": np.ascontiguousarray(probes.scores),
    }
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors))
    return file_fingerprint(path)


def read_probes(folder: Path, manifest: dict[str, Any]) -> Probes | None:
    """The probes of an index, None for an exact one; raises IndexFolderError when they are not the manifest's."""
    if "probes" not in manifest:
        return None
    path = folder / manifest["probes"]["file"]
    if not path.is_file() or file_fingerprint(path) != manifest["probes"]["sha256"]:
        raise IndexFolderError(f"{path} is missing or damaged; remove the folder and build it again")
    try:
        tensors = load_file(path)
    except SafetensorError as exc:
        raise IndexFolderError(f"{path} cannot be read ({exc}); remove the folder and build it again") from exc
    return Probes(tensors["queries"].astype(np.float32), tensors["own"], tensors["ids"], tensors["scores"])
