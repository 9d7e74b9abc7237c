"""How fast this machine trains, fills and writes an index: a few seconds of measurements behind `augkd index plan`."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import faiss
import numpy as np

from augkd.retrieval.dense.size import GRAPH_ABOVE, Constants, subquantisers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.encoders.encoder import IndexEncoder


def measure_constants(dim: int, encoder: IndexEncoder | None = None, texts: Sequence[str] = ()) -> Constants:
    """Times this machine for a few seconds, with all of FAISS's threads; `encoder` is timed on `texts`."""
    vectors = np.random.default_rng(0).standard_normal((GRAPH_ABOVE, dim), dtype=np.float32)
    faiss.normalize_L2(vectors)
    queries, lists = vectors[:8192], vectors[8192:12288]
    return Constants(
        dim=dim,
        flops=2.0 * dim * len(lists) * len(queries) / _fastest(lambda: faiss.knn(queries, lists, 1)),
        graph_seconds=_graph_seconds(vectors),
        code_seconds=_code_seconds(vectors),
        disk_bytes=_disk_bytes(),
        texts=math.nan if encoder is None else len(texts) / _fastest(lambda: encoder.encode(texts), 1),
    )


def _graph_seconds(vectors: NDArray[np.float32]) -> float:
    graph = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    graph.add(vectors)
    graph.hnsw.efSearch = 64
    return _fastest(lambda: graph.search(vectors[:1024], 1)) / 1024


def _code_seconds(vectors: NDArray[np.float32]) -> float:
    dim = vectors.shape[1]
    index = faiss.index_factory(dim, f"PQ{subquantisers(dim)}x4fs,Refine(SQ8)", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:2048])
    return _fastest(lambda: index.add(vectors)) / len(vectors)


def _disk_bytes() -> float:
    block = np.random.default_rng(0).bytes(64 * 2**20)

    def write() -> None:
        with tempfile.TemporaryFile() as stream:
            stream.write(block)
            stream.flush()

    return len(block) / _fastest(write)


def _fastest(work: Callable[[], object], rounds: int = 3) -> float:
    """Seconds of the fastest of several runs: other work on the machine only ever adds time."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
