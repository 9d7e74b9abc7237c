"""The lexical index against bm25s and scikit-learn's TF-IDF with a sparse dot product: build and query rates, one run.

All three index the same texts and answer the same queries, in turn; bm25s gets the same words, so its scores must
agree. With a dense index folder of the same corpus, prints what share of the dense ten nearest BM25 finds.
Run: python tests/benchmarks/bench_lexical.py CORPUS QUERIES [texts] [queries] [dense index folder]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.retrieval.lexical.index import LexicalIndex, build_lexical, words
from augkd.retrieval.lexical.postings import K1, B
from augkd.retrieval.open import open_index

K = 10
ROUNDS = 3


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of `work` and its seconds."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def mebibytes() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def with_bm25s(texts: Sequence[str]) -> Callable[[Sequence[str]], Any]:
    """Builds a bm25s index of `texts`, from token ids; the function that queries it."""
    import bm25s

    vocabulary: dict[str, int] = {}
    rows = [[vocabulary.setdefault(word, len(vocabulary)) for word in words(text)] for text in texts]
    index = bm25s.BM25(k1=K1, b=B, method="lucene")
    index.index((rows, vocabulary), show_progress=False)

    def search(queries: Sequence[str]) -> Any:
        known = [[vocabulary[word] for word in words(query) if word in vocabulary] for query in queries]
        return index.retrieve(known, k=K, show_progress=False)

    return search


def with_tfidf(texts: Sequence[str]) -> Callable[[Sequence[str]], Any]:
    """Builds a TF-IDF matrix of `texts`; the function that queries it by sparse dot products, 64 at a time."""
    vectorizer = TfidfVectorizer(tokenizer=words, token_pattern=None, lowercase=False, dtype=np.float32)
    matrix = vectorizer.fit_transform(texts).T.tocsr()

    def search(queries: Sequence[str]) -> Any:
        rows = vectorizer.transform(queries)
        blocks = (np.asarray((rows[at : at + 64] @ matrix).todense()) for at in range(0, len(queries), 64))
        return [np.argpartition(-block, K, axis=1)[:, :K] for block in blocks]

    return search


def main() -> None:
    """Prints rates, ratios and agreement."""
    corpus, query_file, *rest = sys.argv[1:]
    count = int(rest[0]) if rest else 50_000
    query_count = int(rest[1]) if len(rest) > 1 else 500
    source = CorpusSource(corpus, limit=count)
    queries = list(stream_corpus(CorpusSource(query_file, limit=query_count), CorpusCounts()))

    with tempfile.TemporaryDirectory() as folder:
        before = mebibytes()
        index, ours = timed(lambda: build_lexical(Path(folder), source))
        after = mebibytes()
        texts = index.texts(range(len(index)))
        bm25s_search, bm25s_built = timed(lambda: with_bm25s(texts))
        tfidf_search, tfidf_built = timed(lambda: with_tfidf(texts))
        print(
            f"{len(index)} texts, {len(queries)} queries, k {K}; peak memory rose by {after - before:.0f} MiB building"
        )
        print(f"build, texts/s: augkd {len(index) / ours:.0f} (including reading and writing files)", end="")
        print(f", bm25s {len(index) / bm25s_built:.0f}, TF-IDF {len(index) / tfidf_built:.0f}")
        compare(index, queries, bm25s_search, tfidf_search)
        if len(rest) > 2:
            overlap(index, Path(rest[2]), queries)


def compare(index: LexicalIndex, queries: Sequence[str], bm25s_search: Any, tfidf_search: Any) -> None:
    """Query rates of the three in turn, best of several rounds, and the largest difference from bm25s's scores."""
    seconds = []
    for _ in range(ROUNDS):
        hits, ours = timed(lambda: index.search(queries, K))
        (_, scores), theirs = timed(lambda: bm25s_search(queries))
        _, tfidf = timed(lambda: tfidf_search(queries))
        seconds.append((ours, theirs, tfidf))
    best = np.min(seconds, axis=0)
    rates = len(queries) / best
    print(f"queries/s: augkd {rates[0]:.0f}, bm25s {rates[1]:.0f}, TF-IDF {rates[2]:.0f}", end="")
    print(f"; augkd is {best[1] / best[0]:.1f} times bm25s, {best[2] / best[0]:.1f} times TF-IDF")
    ours = np.where(hits.ids < 0, 0, hits.scores)
    print(f"largest difference from bm25s's scores: {np.abs(ours - scores).max():.1e}")


def overlap(index: LexicalIndex, folder: Path, queries: Sequence[str]) -> None:
    """Share of the dense ten nearest that are among BM25's ten, by text."""
    dense = open_index(folder)
    shared = [
        len(set(index.texts(lexical[lexical >= 0])) & set(dense.texts(near[near >= 0]))) / K
        for lexical, near in zip(index.search(queries, K).ids, dense.search(queries, K).ids, strict=True)
    ]
    print(f"overlap@{K} with {folder.name} ({len(dense)} texts): {np.mean(shared):.3f}")


if __name__ == "__main__":
    main()
