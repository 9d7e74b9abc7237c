"""Searching reports its progress in queries, and reporting changes no byte of the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augkd.recipe import IndexRecipe
from augkd.retrieval.build import build_index
from augkd.retrieval.dense.rerank import CANDIDATES_AT_ONCE, KEPT, block_size, texts_to_rerank
from augkd.retrieval.encoders import sentence
from augkd.retrieval.encoders.encoder import encode
from augkd.retrieval.retriever import Retriever
from augkd.workspace.progress import Steps, silent

KINDS: dict[str, dict[str, Any]] = {
    "sentence": {"kind": "sentence", "max_length": 32},
    "reranked": {"kind": "static", "dim": 16, "rerank": 20},
    "lexical": {"kind": "lexical"},
}


@pytest.fixture
def retriever(
    request: pytest.FixtureRequest,
    corpus_file: Path,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Retriever:
    monkeypatch.setitem(sentence._TOKENS_PER_BATCH, "cpu", 64)  # so that a few texts are many batches
    table = {"corpus": str(corpus_file), "encoder": {"model": str(tiny_bert), **KINDS[request.param]}}
    return build_index(IndexRecipe.model_validate(table), tmp_path / "index", silent)


def _appender(calls: list[tuple[int, int | None]]) -> Steps:
    return lambda done, total: calls.append((done, total))


@pytest.mark.parametrize("retriever", list(KINDS), indirect=True)
def test_progress_counts_queries_up_to_all_of_them_and_changes_no_byte(retriever: Retriever) -> None:
    queries = retriever.texts(range(30))
    groups = [queries[:4], queries[4:25], queries[25:]]
    for search, argument in ((retriever.search, queries), (retriever.search_average, groups)):
        silently = search(argument, 5)  # type: ignore[operator]
        calls: list[tuple[int, int | None]] = []
        hits = search(argument, 5, progress=_appender(calls))  # type: ignore[operator]

        assert hits.ids.tobytes() == silently.ids.tobytes()
        assert hits.scores.tobytes() == silently.scores.tobytes()
        done = [count for count, _ in calls]
        assert done == sorted(done)
        assert calls[-1] == (len(argument), len(argument))
        assert {total for _, total in calls} == {len(argument)}
        assert len(calls) >= 3, "more often than once per block"


def test_blocks_made_smaller_for_progress_would_change_bytes() -> None:
    """The twin: why progress is reported from inside an encode call and not between smaller ones."""
    encoder = sentence.SentenceEncoder.load(precision="bfloat16", tokens_per_batch=100_000)  # one batch
    texts = [
        "why ?",
        "where was franz kafka born",
        "What was the score of the game against Villanova at home in the 1998 season?",
        "Who was the Roman god of war, and what day of the week is named after him in French?",
    ]
    whole = encoder.encode(texts)
    assert encode(encoder, texts, lambda done, total: None).tobytes() == whole.tobytes()
    apart = np.concatenate([encoder.encode([text]) for text in texts])
    assert apart.tobytes() != whole.tobytes()
    np.testing.assert_allclose(apart, whole, atol=4e-3)


def test_an_encoder_that_cannot_report_is_done_all_at_once() -> None:
    class Zeros:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.zeros((len(texts), 2), dtype=np.float32)

    calls: list[tuple[int, int | None]] = []
    assert encode(Zeros(), ["a", "b"], _appender(calls)).shape == (2, 2)
    assert calls == [(2, 2)]


def test_reranking_takes_each_candidate_once_and_never_more_than_the_corpus() -> None:
    assert texts_to_rerank(queries=10, depth=100, corpus=50_000) == 10 + 10 * 100
    assert texts_to_rerank(queries=10, depth=100, corpus=300) == 10 + 300
    assert texts_to_rerank(queries=0, depth=100, corpus=300) == 0
    assert texts_to_rerank(queries=10, depth=0, corpus=300) == 0

    size = block_size(100)
    assert size == CANDIDATES_AT_ONCE // 100
    assert texts_to_rerank(2 * size + 3, 100, 5_000) == 2 * size + 3 + 5_000  # three blocks, one memory
    many = KEPT + 1
    assert texts_to_rerank(8 * size + 3, 100, many) == 8 * size + 3 + 8 * size * 100 + 300  # forgotten in between


def test_the_estimate_bounds_what_the_full_model_really_encodes(
    corpus_file: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"corpus": str(corpus_file), "encoder": {"model": str(tiny_bert), **KINDS["reranked"]}}
    retriever = build_index(IndexRecipe.model_validate(table), tmp_path / "index", silent)
    counts: list[int] = []
    encode_reporting = sentence.SentenceEncoder.encode_reporting

    def counting(self: Any, texts: Sequence[str], progress: Any) -> np.ndarray:
        counts.append(len(texts))
        return encode_reporting(self, texts, progress)

    monkeypatch.setattr(sentence.SentenceEncoder, "encode_reporting", counting)
    retriever.search(retriever.texts(range(6)), 5)
    assert 6 + 20 <= sum(counts) <= texts_to_rerank(6, 20, len(retriever))
