"""From encoded parts to `vectors.faiss`: sample, train, add, tune, write.

Two passes over the spool, with one part in memory at a time. The held-out queries are drawn first and kept out of the
training sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from augkd.errors import RecipeError
from augkd.retrieval.dense.choice import create, faiss_reason, inverted, is_exact
from augkd.retrieval.dense.held_out import KEY, RECALL, RECALL_AT, HeldOutQueries, find_true_neighbours, write_queries
from augkd.retrieval.dense.size import ENCODER_SAMPLE, GRAPH_ABOVE, POINTS_PER_LIST, sample_size
from augkd.retrieval.dense.tuning import SearchParameters, tune
from augkd.retrieval.spool import Spool
from augkd.workspace.files import replacing
from augkd.workspace.fingerprints import file_fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

VECTORS = "vectors.faiss"  # as a build names it; a change appends a number
_HELD_OUT = 1000  # queries; standard error about 0.4 points at recall 0.95


def make_vectors(
    folder: Path,
    spool: Spool,
    factory: str,  # resolved, not auto
    recall: float,
    seed: int,
) -> dict[str, Any]:
    """Writes `vectors.faiss`, and the held-out queries unless it is exact; the facts about them for the manifest.

    Raises RecipeError if FAISS fails on these vectors.
    """
    rng = np.random.default_rng(seed)
    index = create(spool.dim, factory)
    held_out = _sample(rng, np.arange(spool.count), max(1, min(_HELD_OUT, spool.count // 4)))
    try:
        _train(index, spool, rng, seed, held_out)
        _fill(index, spool)
    except RuntimeError as exc:
        raise RecipeError(
            f"faiss factory '{factory}' failed on {spool.count} vectors ({faiss_reason(exc)}); use auto"
        ) from exc

    if is_exact(index):
        return {"factory": factory} | write_vectors(folder, index, "", SearchParameters(), 1.0, None)
    queries = find_true_neighbours(spool, held_out)
    parameters, measured = tune(index, queries, recall, RECALL_AT)
    return {"factory": factory} | write_vectors(folder, index, "", parameters, measured, queries)


def write_vectors(
    folder: Path,
    index: Any,
    suffix: str,  # of the file names: '' for a build, -1, -2 … for the changes after it
    parameters: SearchParameters,
    measured: float,  # recall
    queries: HeldOutQueries | None,
) -> dict[str, Any]:
    """Writes the FAISS file and the held-out queries; the facts about them for the manifest."""
    path = folder / f"vectors{suffix}.faiss"
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))
    facts: dict[str, Any] = {
        "count": int(index.ntotal),
        "dim": int(index.d),
        **parameters.facts(),
        RECALL: round(measured, 4),
        "bytes_per_vector": round(path.stat().st_size / index.ntotal, 1),
        "sha256": file_fingerprint(path),
        "vectors": path.name,
    }
    return facts if queries is None else facts | {KEY: write_queries(folder, queries, suffix)}


def vector_files(facts: Mapping[str, Any]) -> list[str]:
    """The names of the files that `write_vectors` wrote, from its facts."""
    return [facts["vectors"], *([facts[KEY]["file"]] if KEY in facts else [])]


def _train(index: Any, spool: Spool, rng: np.random.Generator, seed: int, held_out: NDArray[np.int64]) -> None:
    if index.is_trained:
        return
    ivf = inverted(index)
    if ivf is not None:
        ivf.cp.seed = seed
    lists = int(ivf.nlist) if ivf is not None else 0
    ids = np.setdiff1d(np.arange(spool.count), held_out)
    if len(ids) < max(POINTS_PER_LIST * lists, 256):  # too few texts to hold any out
        ids = np.arange(spool.count)
    sample = spool.take(_sample(rng, ids, sample_size(len(ids), lists)))
    if not isinstance(index, faiss.IndexRefine):
        index.train(sample)
        return
    index.base_index.train(sample)
    index.refine_index.train(sample[:: -(-len(sample) // ENCODER_SAMPLE)])  # its training copies its input
    index.is_trained = True


def _fill(index: Any, spool: Spool) -> None:
    _reserve(index, spool.count)
    ivf = inverted(index)
    if ivf is None or ivf.nlist <= GRAPH_ABOVE or isinstance(index, faiss.IndexPreTransform):
        add(index, spool)
        return
    # The nearest of L lists, exactly, is n·L work, hence n^1.5; a graph over the centroids makes it n·log n. Time per
    # vector, on two cores with AVX-512: among 8192 lists 16 µs, with the graph 26 (64 dimensions), and 40 against 61
    # (384); among 16,384 lists 31 against 32 and 75 against 111. Searching compares with all centroids again: a query
    # visits many lists, and a graph would miss some.
    exact, owned = ivf.quantizer, ivf.own_fields
    graph = _centroid_graph(faiss.downcast_index(exact))
    ivf.own_fields, ivf.quantizer = False, graph
    try:
        add(index, spool)
    finally:
        ivf.quantizer, ivf.own_fields = exact, owned


def _centroid_graph(centroids: Any) -> Any:
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
    """Appends all vectors of the spool, one part at a time."""
    for vectors in spool.parts():
        index.add(vectors)


def _reserve(index: Any, count: int) -> None:
    """Allocates all codes at once: a vector that doubles as it grows takes up to three times its size meanwhile."""
    table = faiss.downcast_index(index.refine_index) if isinstance(index, faiss.IndexRefine) else index
    if isinstance(table, faiss.IndexFlatCodes):
        table.codes.resize(count * table.code_size)
        table.codes.resize(0)


def _sample(rng: np.random.Generator, ids: NDArray[np.int64], size: int) -> NDArray[np.int64]:  # ascending
    if size >= len(ids):
        return ids.astype(np.int64)
    return np.sort(rng.choice(ids, size, replace=False, shuffle=False)).astype(np.int64)
