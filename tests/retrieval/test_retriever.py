"""The contract of every retriever, and the dense one against brute force, with and without its re-ranker."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from augkd.data.corpus import CorpusSource
from augkd.errors import RecipeError
from augkd.retrieval.dense import rerank
from augkd.retrieval.dense import retriever as retrievers
from augkd.retrieval.dense.retriever import DenseRetriever
from augkd.retrieval.dense.search import Index
from augkd.retrieval.engines.local import build_dense
from augkd.retrieval.lexical.index import LexicalIndex, build_lexical
from augkd.retrieval.retriever import Retriever, best_first

THINGS = ("river", "moon", "jazz", "bread", "atom", "queen", "tiger", "violin")
TEXTS = [f"the {first} and the {second}" for first, second in itertools.combinations(THINGS, 2)]
QUERIES = ["a river by the moon", "bread for the queen", "tiger", "jazz violin and jazz"]


class HashEncoder:
    """Unit vectors: the sum of one random vector for each word, drawn from `seed`. Records the texts of every call."""

    def __init__(self, seed: int = 0, dim: int = 16) -> None:
        self.seed = seed
        self.dim = dim
        self.name = f"hash-{seed}"
        self.fingerprint = f"hash-{seed}-{dim}"
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.split():
                row += np.random.default_rng([self.seed, zlib.crc32(word.encode())]).standard_normal(self.dim)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("indexes")
    path = root / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    source = CorpusSource(str(path))
    build_dense(root / "dense", source, HashEncoder())
    build_lexical(root / "lexical", source, recipe={"encoder": {"kind": "lexical"}})
    return {"dense": root / "dense", "lexical": root / "lexical"}


@pytest.fixture(params=["dense", "reranked", "lexical"])
def retriever(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Retriever:
    if request.param == "lexical":
        return LexicalIndex.open(folders["lexical"])
    index = Index.open(folders["dense"])
    if request.param == "dense":
        return DenseRetriever(index, HashEncoder())
    return DenseRetriever(index, HashEncoder(), reranker=HashEncoder(1, 24), rerank=20)


def cosines(encoder: HashEncoder, queries: Sequence[str]) -> np.ndarray:  # (queries, texts)
    return encoder.encode(queries) @ encoder.encode(TEXTS).T


# --- the contract ---------------------------------------------------------------------------------------------------


def test_hits_have_the_requested_shape(retriever: Retriever) -> None:
    for k in (1, 5, len(TEXTS) + 7):
        hits = retriever.search(QUERIES, k)
        assert hits.scores.shape == hits.ids.shape == (4, k)
        assert (hits.scores.dtype, hits.ids.dtype, hits.vectors) == (np.float32, np.int64, None)
    assert retriever.search([], 3).ids.shape == (0, 3)
    assert len(retriever) == len(TEXTS)


def test_hits_are_sorted_by_score_then_id_and_padded_at_the_end(retriever: Retriever) -> None:
    hits = retriever.search(QUERIES, len(TEXTS) + 7)
    for scores, ids in zip(hits.scores.tolist(), hits.ids.tolist(), strict=True):
        count = sum(id_ >= 0 for id_ in ids)
        pairs = list(zip(scores[:count], ids[:count], strict=True))
        assert pairs == sorted(pairs, key=lambda hit: (-hit[0], hit[1]))
        assert len(set(ids[:count])) == count > 0
        assert set(ids[count:]) == {-1}
        assert set(scores[count:]) == {-np.inf}


def test_a_query_has_the_same_hits_alone_and_among_others(retriever: Retriever) -> None:
    together = retriever.search(QUERIES, 5)
    for row, query in enumerate(QUERIES):
        alone = retriever.search([query], 5)
        np.testing.assert_array_equal(alone.ids[0], together.ids[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-6)


def test_the_average_of_one_text_is_that_text(retriever: Retriever) -> None:
    average = retriever.search_average([[query] for query in QUERIES], 5)
    np.testing.assert_array_equal(average.ids, retriever.search(QUERIES, 5).ids)
    assert retriever.search_average([], 3).ids.shape == (0, 3)


def test_ids_are_rows_of_the_corpus(retriever: Retriever) -> None:
    ids = retriever.search(["tiger and violin"], 3).ids[0]
    assert retriever.texts(ids) == [TEXTS[id_] for id_ in ids]


def test_only_cosines_are_bounded(retriever: Retriever) -> None:
    assert retriever.bounded == (retriever.manifest.encoder.kind != "lexical")
    assert retriever.folder.is_dir()


def test_a_k_below_one_and_an_empty_group_are_refused(retriever: Retriever) -> None:
    with pytest.raises(RecipeError, match="k is 0; give at least 1"):
        retriever.search(QUERIES, 0)
    with pytest.raises(RecipeError, match="group 1 of 2 has no text"):
        retriever.search_average([["a"], []], 1)


# --- dense ----------------------------------------------------------------------------------------------------------


def test_dense_hits_are_the_brute_force_cosines(folders: dict[str, Path]) -> None:
    hits = DenseRetriever(Index.open(folders["dense"]), HashEncoder()).search(QUERIES, 6)
    truth = cosines(HashEncoder(), QUERIES)
    np.testing.assert_allclose(hits.scores, -np.sort(-truth, axis=1)[:, :6], atol=1e-3)  # stored as float16 on the way
    np.testing.assert_allclose(hits.scores, np.take_along_axis(truth, hits.ids, axis=1), atol=1e-3)


def test_the_average_query_is_the_normalised_mean_of_unit_vectors(folders: dict[str, Path]) -> None:
    groups = [QUERIES[:3], QUERIES[2:]]
    hits = DenseRetriever(Index.open(folders["dense"]), HashEncoder()).search_average(groups, 6)
    means = np.stack([HashEncoder().encode(group).mean(axis=0) for group in groups])
    truth = means / np.linalg.norm(means, axis=1, keepdims=True) @ HashEncoder().encode(TEXTS).T
    np.testing.assert_allclose(hits.scores, -np.sort(-truth, axis=1)[:, :6], atol=1e-3)
    np.testing.assert_allclose(hits.scores, np.take_along_axis(truth, hits.ids, axis=1), atol=1e-3)


def test_vectors_of_hits_are_those_of_their_texts(folders: dict[str, Path]) -> None:
    for reranker in (None, HashEncoder(1, 24)):
        dense = DenseRetriever(Index.open(folders["dense"]), HashEncoder(), reranker=reranker)
        hits = dense.search(QUERIES, len(TEXTS) + 2, vectors=True)
        assert hits.vectors is not None
        assert hits.vectors.shape == (4, len(TEXTS) + 2, 16)
        for ids, vectors in zip(hits.ids, hits.vectors, strict=True):
            known = ids >= 0
            np.testing.assert_allclose(vectors[known], HashEncoder().encode(dense.texts(ids[known])), atol=1e-3)
            assert (vectors[~known] == 0).all()


def test_reranking_orders_the_deep_hits_by_the_full_models_cosine(folders: dict[str, Path]) -> None:
    full = HashEncoder(1, 24)
    index = Index.open(folders["dense"])
    hits = DenseRetriever(index, HashEncoder(), reranker=full, rerank=20).search(QUERIES, 5)

    _, deep = index.search(HashEncoder().encode(QUERIES), 20)
    truth = cosines(full, QUERIES)
    for row, candidates in enumerate(deep):
        best = sorted(candidates.tolist(), key=lambda id_: (-truth[row, id_], id_))[:5]
        np.testing.assert_allclose(hits.scores[row], truth[row, best], atol=1e-6)
        np.testing.assert_allclose(truth[row, hits.ids[row]], truth[row, best], atol=1e-6)
        assert set(hits.ids[row].tolist()) <= set(candidates.tolist())


def test_without_a_reranker_the_order_is_that_of_the_index(folders: dict[str, Path]) -> None:
    index = Index.open(folders["dense"])
    plain = DenseRetriever(index, HashEncoder()).search(QUERIES, 5)
    scores, ids = index.search(HashEncoder().encode(QUERIES), 5)
    np.testing.assert_array_equal(plain.scores, best_first(scores, ids, None, 5).scores)
    reranked = DenseRetriever(index, HashEncoder(), reranker=HashEncoder(1, 24), rerank=20).search(QUERIES, 5)
    assert (plain.ids != reranked.ids).any(axis=1).all()


def test_a_reranker_as_deep_as_the_corpus_gives_the_full_models_neighbours(folders: dict[str, Path]) -> None:
    full = HashEncoder(1, 24)
    dense = DenseRetriever(Index.open(folders["dense"]), HashEncoder(), reranker=full, rerank=len(TEXTS))
    truth = cosines(full, QUERIES)
    np.testing.assert_allclose(dense.search(QUERIES, 5).scores, -np.sort(-truth, axis=1)[:, :5], atol=1e-6)


def test_a_group_is_reranked_by_the_mean_in_the_full_models_space(folders: dict[str, Path]) -> None:
    full = HashEncoder(1, 24)
    dense = DenseRetriever(Index.open(folders["dense"]), HashEncoder(), reranker=full, rerank=len(TEXTS))
    mean = full.encode(QUERIES).mean(axis=0)
    truth = full.encode(TEXTS) @ (mean / np.linalg.norm(mean))
    np.testing.assert_allclose(dense.search_average([QUERIES], 5).scores[0], -np.sort(-truth)[:5], atol=1e-6)


def test_block_borders_change_no_byte_and_a_shared_text_is_encoded_once(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [*QUERIES, *TEXTS[:9]]
    full = HashEncoder(1, 24)
    dense = DenseRetriever(Index.open(folders["dense"]), HashEncoder(), reranker=full, rerank=20)
    whole = dense.search(queries, 5)
    assert [len(texts) for texts in full.calls] == [len(set(texts)) for texts in full.calls]
    assert len(full.calls) == 2  # the queries, then the candidates of all

    monkeypatch.setattr(rerank, "CANDIDATES_AT_ONCE", 60)  # three queries at a time
    monkeypatch.setattr(retrievers, "_AVERAGED", 2)
    full.calls.clear()
    blocked = dense.search(queries, 5)
    np.testing.assert_array_equal(blocked.ids, whole.ids)
    np.testing.assert_array_equal(blocked.scores, whole.scores)
    candidates = [text for texts in full.calls if set(texts) - set(queries) for text in texts]
    assert len(candidates) == len(set(candidates))


def test_a_search_that_may_remember_few_texts_encodes_some_again_and_finds_the_same(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = HashEncoder(1, 24)
    dense = DenseRetriever(Index.open(folders["dense"]), HashEncoder(), reranker=full, rerank=20)
    monkeypatch.setattr(rerank, "CANDIDATES_AT_ONCE", 60)
    whole = dense.search(TEXTS[:12], 5)
    encoded = sum(map(len, full.calls))
    full.calls.clear()
    monkeypatch.setattr(rerank, "KEPT", 25)
    forgetful = dense.search(TEXTS[:12], 5)
    assert sum(map(len, full.calls)) > encoded
    np.testing.assert_array_equal(forgetful.ids, whole.ids)
    np.testing.assert_array_equal(forgetful.scores, whole.scores)


def test_equal_texts_tie_after_reranking_and_are_encoded_once(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join([*TEXTS[:5], TEXTS[2], *TEXTS[5:9], TEXTS[2]]) + "\n")
    index = build_dense(tmp_path / "index", CorpusSource(str(path), duplicates="keep"), HashEncoder())
    full = HashEncoder(1, 24)
    hits = DenseRetriever(index, HashEncoder(), reranker=full, rerank=11).search([TEXTS[2]], 3)
    assert hits.ids.tolist() == [[2, 5, 10]]
    assert len(set(hits.scores[0].tolist())) == 1
    assert full.calls[1].count(TEXTS[2]) == 1


def test_ties_go_to_the_lower_id_and_padding_to_the_end() -> None:
    scores = np.array([[0.5, 0.9, 0.5, 0.0], [0.1, 0.1, 0.1, 0.2]], dtype=np.float32)
    ids = np.array([[7, 3, 2, -1], [9, 4, 6, 8]])
    hits = best_first(scores, ids, None, 4)
    assert hits.ids.tolist() == [[3, 2, 7, -1], [8, 4, 6, 9]]
    assert hits.scores[0, 3] == -np.inf


@pytest.mark.parametrize("rerank", [-1, 5])
def test_a_depth_that_nothing_can_rerank_is_refused(folders: dict[str, Path], rerank: int) -> None:
    with pytest.raises(RecipeError, match=f"rerank is {rerank}; give 0, or a depth"):
        DenseRetriever(Index.open(folders["dense"]), HashEncoder(), rerank=rerank)
