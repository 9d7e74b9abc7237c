"""Encoding speed and fidelity: SentenceEncoder in each precision against SentenceTransformer.encode at its defaults.

All encode the same texts in turn, round after round, so that changes in the machine's speed affect all. Printed per
precision: the ratio of the best rates by wall clock and by processor time (less sensitive to other load, but it also
counts the peer's spinning threads), the lowest cosine, and recall@10 against the peer's float32 neighbours.
Run: python tests/benchmarks/bench_encoder.py CORPUS [texts] [precision,…]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.models.locate import BUNDLED, locate
from augkd.retrieval.encoders.sentence import SentenceEncoder

ROUNDS = 3
QUERIES = 500


def main() -> None:
    """Prints a line per encoder; the first is the peer."""
    corpus, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    precisions = sys.argv[3].split(",") if len(sys.argv) > 3 else ["float32", "bfloat16", "int8"]
    texts = list(stream_corpus(CorpusSource(dataset=corpus, limit=count), CorpusCounts()))
    peer = SentenceTransformer(str(locate(BUNDLED)), device="cpu")
    with tempfile.TemporaryDirectory() as cache:
        encoders: dict[str, Callable[[list[str]], np.ndarray]] = {
            "SentenceTransformer.encode": lambda texts: peer.encode(texts, normalize_embeddings=True)
        }
        for precision in precisions:
            encoders[precision] = SentenceEncoder.load(precision=precision, cache=Path(cache)).encode
        clock, processor, vectors = rates(encoders, texts)

    reference = vectors["SentenceTransformer.encode"]
    expected = nearest(reference)
    for name, rows in vectors.items():
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(expected, nearest(rows), strict=True)])
        print(
            f"{name:27} {clock[name]:6.0f} texts/s, x{clock[name] / clock['SentenceTransformer.encode']:.2f}; "
            f"processor {processor[name]:6.0f}, x{processor[name] / processor['SentenceTransformer.encode']:.2f}; "
            f"cosine >= {np.einsum('nd,nd->n', rows, reference).min():.5f}; recall@10 {recall:.4f}"
        )


def rates(
    encoders: dict[str, Callable[[list[str]], np.ndarray]], texts: list[str]
) -> tuple[dict[str, float], dict[str, float], dict[str, np.ndarray]]:
    """Best texts per second of wall clock and of processor time, and the vectors, of each encoder."""
    clock, processor, vectors = dict.fromkeys(encoders, 0.0), dict.fromkeys(encoders, 0.0), {}
    for _ in range(ROUNDS):
        for name, encode in encoders.items():
            started, used = time.perf_counter(), time.process_time()
            vectors[name] = encode(texts)
            clock[name] = max(clock[name], len(texts) / (time.perf_counter() - started))
            processor[name] = max(processor[name], len(texts) / (time.process_time() - used))
    return clock, processor, vectors


def nearest(vectors: np.ndarray, count: int = 10) -> np.ndarray:  # (queries, count)
    """The rows nearest to each of the first rows, itself left out."""
    scores = vectors[:QUERIES] @ vectors.T
    scores[np.arange(len(scores)), np.arange(len(scores))] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


if __name__ == "__main__":
    main()
