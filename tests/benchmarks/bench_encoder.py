"""Encoding speed: augkd's SentenceEncoder against SentenceTransformer.encode at its defaults, side by side in one run.

Both encode the same texts in turn, A B A B, so that a drift of the machine hits both; the median ratio is printed with
the lowest cosine between their vectors. Run: python tests/benchmarks/bench_encoder.py [texts]
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time

import numpy as np
from sentence_transformers import SentenceTransformer

from augkd.checkpoints import BUNDLED, locate
from augkd.demo import corpus_texts
from augkd.retrieval.encoder import SentenceEncoder

ROUNDS = 3


def main() -> None:
    """Prints texts per second of both and the ratio."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    texts = list(itertools.islice(corpus_texts(), count))
    ours = SentenceEncoder.load(BUNDLED)
    theirs = SentenceTransformer(str(locate(BUNDLED)), device="cpu")
    ratios, speeds = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        mine = ours.encode(texts)
        middle = time.perf_counter()
        reference = theirs.encode(texts, normalize_embeddings=True)
        ended = time.perf_counter()
        ratios.append((ended - middle) / (middle - started))
        speeds.append((count / (middle - started), count / (ended - middle)))
    cosine = float(np.einsum("nd,nd->n", mine, reference).min())
    best = [max(column) for column in zip(*speeds, strict=True)]
    print(f"augkd ({ours.precision}) {best[0]:.0f} texts/s, SentenceTransformer.encode {best[1]:.0f} texts/s")
    print(f"ratio: median {statistics.median(ratios):.2f} of {ROUNDS} rounds; lowest cosine {cosine:.5f}")


if __name__ == "__main__":
    main()
