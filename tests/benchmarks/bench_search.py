"""Search speed, recall, bytes and opening time against sentence_transformers.util.semantic_search and datasets.

All three answer the same queries over the same vectors with default settings, in turn (A B C A B C) and in one process,
so that changes in the machine's speed affect all; the median ratio is printed. Vectors come from a finished index
folder, from an .npy file, or by default from noisy points. Run:
    python tests/benchmarks/bench_search.py --vectors vectors.npy --count 720000 --queries 10000 --k 8
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from augkd.data.corpus import CorpusSource
from augkd.retrieval.dense.search import Index
from augkd.retrieval.engines.local import build_dense


class StoredVectors:
    """Row i for the text 'i'."""

    name, fingerprint = "stored", "stored"

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors, self.dim = vectors, vectors.shape[1]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return unit(self._vectors[[int(text) for text in texts]])


def unit(vectors: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    faiss.normalize_L2(rows)
    return rows


def vectors_from(source: str | None, count: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    if source is None:  # 48 latent dimensions and noise
        latent = rng.standard_normal((count, 48), dtype=np.float32) @ rng.standard_normal((48, dim), dtype=np.float32)
        return unit(latent / 7 + 0.3 * rng.standard_normal((count, dim), dtype=np.float32))
    path = Path(source)
    if path.is_dir():
        manifest = Index.open(path).manifest.on_disk()
        index = faiss.read_index(str(path / manifest["vectors"]))
        faiss.extract_index_ivf(index).make_direct_map()
        stored = index.reconstruct_n(0, index.ntotal)
    else:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    rows = rng.permutation(len(stored))
    copies = -(-count // len(rows))  # repeated with a little noise if there are too few
    if copies == 1:
        return unit(stored[np.sort(rows[:count])])
    noise = 0.3 / np.sqrt(stored.shape[1])
    return np.concatenate(
        [unit(stored[rows] + noise * rng.standard_normal(stored.shape, dtype=np.float32)) for _ in range(copies)]
    )[:count]


def timed(work: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def main() -> None:
    """Prints seconds, ratios, recall@10, bytes per vector and the time to open."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--vectors", help=".npy of (n, dim), or a finished index folder; default: synthetic")
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--dim", type=int, default=384, help="of synthetic vectors")
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--factory", default=None, help="default: as auto, but inverted lists even for few vectors")
    options = parser.parse_args()

    import torch
    from datasets import Dataset
    from sentence_transformers.util import semantic_search

    pool = vectors_from(options.vectors, options.count + options.queries, options.dim)
    order = np.random.default_rng(1).permutation(len(pool))
    queries = pool[order[: options.queries]]
    vectors = pool[np.sort(order[options.queries :])]
    from augkd.retrieval.dense.size import EXACT, EXACT_UP_TO, plan_index

    inverted = next(o.factory for o in plan_index(len(vectors), vectors.shape[1]).options if o.factory != EXACT.name)
    factory = options.factory or ("auto" if len(vectors) > EXACT_UP_TO else inverted)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        corpus = Path(temporary) / "numbers.txt"
        corpus.write_text("".join(f"{row}\n" for row in range(len(vectors))))
        building, _ = timed(
            lambda: build_dense(folder, CorpusSource(str(corpus)), StoredVectors(vectors), factory=factory)
        )
        opening, index = timed(lambda: Index.open(folder))
        again, index = timed(lambda: Index.open(folder))
        texts = Dataset.from_dict({"row": list(range(len(vectors)))})
        texts.add_faiss_index_from_external_arrays(vectors, index_name="vectors")
        tensor, query_tensor = torch.from_numpy(vectors), torch.from_numpy(queries)

        searches = {
            "augkd": lambda: index.search(queries, options.k),
            "semantic_search": lambda: semantic_search(query_tensor, tensor, top_k=options.k),
            "datasets": lambda: texts.search_batch("vectors", queries, k=options.k),
        }
        seconds: dict[str, list[float]] = {name: [] for name in searches}
        for _ in range(options.rounds):
            for name, work in searches.items():
                seconds[name].append(timed(work)[0])
        truth = faiss.knn(queries, vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
        ids = index.search(queries, 10)[1]

    recall = np.mean([len(np.intersect1d(a, b)) for a, b in zip(ids, truth, strict=True)]) / 10
    manifest = index.manifest.on_disk()
    print(f"{len(vectors)} vectors of {vectors.shape[1]}, {len(queries)} queries, k {options.k}, {manifest['factory']}")
    print(f"nprobe {manifest['nprobe']}, k_factor {manifest.get('k_factor', 0)}, built in {building:.1f} s")
    print(f"recall@10 {recall:.4f} on held-out queries, {manifest['recall@10']} in the manifest")
    exact = 4 * vectors.shape[1]
    size = manifest["bytes_per_vector"]
    print(f"bytes per vector: {size} against {exact}: 1/{exact / size:.2f}")
    print(f"opening: {opening * 1000:.0f} ms, again {again * 1000:.0f} ms")
    for name, values in seconds.items():
        ratio = statistics.median(t / own for t, own in zip(values, seconds["augkd"], strict=True))
        print(f"{name}: {statistics.median(values):.3f} s, {ratio:.1f} x augkd's")


if __name__ == "__main__":
    main()
