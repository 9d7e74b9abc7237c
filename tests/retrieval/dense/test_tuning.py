"""Tuned search parameters are the cheapest that reach the recall, by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from augkd.retrieval.dense.choice import create
from augkd.retrieval.dense.held_out import HeldOutQueries
from augkd.retrieval.dense.tuning import SearchParameters, measure, set_parameters, tune

DIM = 16


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


VECTORS = unit(np.random.default_rng(0).standard_normal((3000, DIM)))


def queries_of(vectors: np.ndarray, count: int = 200) -> HeldOutQueries:
    cosines = vectors[:count] @ vectors.T
    cosines[np.arange(count), np.arange(count)] = -2
    ids = np.argsort(-cosines, axis=1)[:, :40]
    return HeldOutQueries(vectors[:count], np.arange(count), ids, np.take_along_axis(cosines, ids, axis=1))


def filled(factory: str) -> object:
    index = create(DIM, factory)
    index.train(VECTORS)
    index.add(VECTORS)
    return index


@pytest.mark.parametrize("factory", ["IVF32,SQ8", "IVF32,PQ4x4fs,Refine(SQ8)", "HNSW8,Flat"])
def test_tuned_parameters_reach_the_recall_and_cheaper_ones_do_not(factory: str) -> None:
    index, queries = filled(factory), queries_of(VECTORS)
    parameters, measured = tune(index, queries, 0.9, 10)
    assert measured >= 0.9
    ids = index.search(VECTORS[:200], 11)[1]  # the index is left at these parameters
    shared = [len(set(row[row != own][:10]) & set(queries.ids[own, :10])) for own, row in enumerate(ids)]
    assert measured == pytest.approx(np.mean(shared) / 10)

    if parameters.nprobe > 1:
        set_parameters(index, SearchParameters(nprobe=parameters.nprobe // 2))
        assert measure(index, queries, 10)[0] < 0.9
    if parameters.efSearch > 16:
        set_parameters(index, SearchParameters(efSearch=parameters.efSearch // 2))
        assert measure(index, queries, 10)[0] < 0.9


def test_an_index_with_a_second_table_needs_its_re_ranking() -> None:
    index, queries = filled("IVF8,PQ4x4fs,Refine(SQ8)"), queries_of(VECTORS)
    parameters, measured = tune(index, queries, 0.9, 10)
    assert measured > 0.9
    set_parameters(index, SearchParameters(nprobe=8, k_factor=1.0))
    assert measure(index, queries, 10)[0] < 0.7
    assert parameters.facts() == {"nprobe": parameters.nprobe, "k_factor": parameters.k_factor}


def test_for_a_recall_out_of_reach_the_cheapest_parameters_near_the_best_are_taken() -> None:
    index, queries = filled("IVF32,RaBitQ"), queries_of(VECTORS)
    parameters, measured = tune(index, queries, 0.99, 10)
    by_nprobe = {}
    for nprobe in (1, 2, 4, 8, 16, 32):
        set_parameters(index, SearchParameters(nprobe=nprobe))
        by_nprobe[nprobe] = measure(index, queries, 10)[0]
    enough = [nprobe for nprobe, value in by_nprobe.items() if value >= max(by_nprobe.values()) - 0.005]
    assert (parameters.nprobe, measured) == (enough[0], by_nprobe[enough[0]])
    assert measured < 0.99


def test_an_exact_index_has_no_parameters() -> None:
    assert tune(filled("Flat"), queries_of(VECTORS), 0.95, 10) == (SearchParameters(), 1.0)
    alone = HeldOutQueries(
        VECTORS[:1], np.array([0]), np.full((1, 40), -1), np.full((1, 40), -np.inf, dtype=np.float32)
    )
    assert tune(filled("IVF32,SQ8"), alone, 0.95, 10) == (SearchParameters(nprobe=2), 1.0)
