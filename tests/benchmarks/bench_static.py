"""Static vectors against the model they are distilled from: how much faster they are, and what they find.

Encode time of both on the same texts, in turn; then, for queries from the same corpus, the share of the full model's
ten nearest texts among the static encoder's 10 and 100 nearest; the latter is what re-ranking 100 with the full model
returns. Targets: 20 times as fast, 0.85. The token vectors are fitted to `sample` further texts of the corpus (0: not
fitted). Run: python tests/benchmarks/bench_static.py CORPUS [texts] [dim,…] [sample]
"""

from __future__ import annotations

import sys
import time

import numpy as np

from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.retrieval.encoders.distillation import distill
from augkd.retrieval.encoders.sentence import SentenceEncoder
from augkd.retrieval.encoders.static import StaticEncoder

ROUNDS = 3
QUERIES = 500


def main() -> None:
    """Prints a line per width."""
    corpus, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    widths = [int(dim) for dim in sys.argv[3].split(",")] if len(sys.argv) > 3 else [256, 384]
    sample_size = int(sys.argv[4]) if len(sys.argv) > 4 else 20_000
    lines = list(stream_corpus(CorpusSource(dataset=corpus, limit=count + sample_size), CorpusCounts()))
    texts, sample = lines[:count], lines[count:]
    full = SentenceEncoder.load()
    (full_clock, full_processor), reference = rate(full, texts)
    expected = nearest(reference, 10)
    for dim in widths:
        started = time.process_time()
        static = distill(dim=dim, texts=sample)
        seconds = time.process_time() - started
        (clock, processor), vectors = rate(static, texts)
        print(
            f"dim {dim} (explains {static.facts['explained']:.3f}, distilled in {seconds:.0f} processor seconds): "
            f"{clock:.0f} texts/s, x{clock / full_clock:.0f}; processor x{processor / full_processor:.0f}; "
            f"recall@10 {recall(expected, nearest(vectors, 10)):.3f}, "
            f"of 100 re-ranked {recall(expected, nearest(vectors, 100)):.3f}"
        )


def rate(encoder: SentenceEncoder | StaticEncoder, texts: list[str]) -> tuple[tuple[float, float], np.ndarray]:
    """Best texts per second of wall clock and of processor time, and the vectors."""
    clock, processor, vectors = 0.0, 0.0, np.zeros((0, 0))
    for _ in range(1 if isinstance(encoder, SentenceEncoder) else ROUNDS):
        started, used = time.perf_counter(), time.process_time()
        vectors = encoder.encode(texts)
        clock = max(clock, len(texts) / (time.perf_counter() - started))
        processor = max(processor, len(texts) / (time.process_time() - used))
    return (clock, processor), vectors


def recall(expected: np.ndarray, hits: np.ndarray) -> float:
    """Share of the expected rows that are among the hits."""
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(expected, hits, strict=True)]))


def nearest(vectors: np.ndarray, count: int) -> np.ndarray:  # (queries, count)
    """The rows nearest to each of the first rows, itself left out."""
    scores = vectors[:QUERIES] @ vectors.T
    scores[np.arange(len(scores)), np.arange(len(scores))] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


if __name__ == "__main__":
    main()
