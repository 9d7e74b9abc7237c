"""Which index is chosen, and that its effort is the least that reaches the recall."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from augkd.errors import RecipeError
from augkd.retrieval.dense.choice import Effort, Probes, choose, create, measure, set_effort, tune

DIM = 16


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


VECTORS = unit(np.random.default_rng(0).standard_normal((3000, DIM)))


def probes_of(vectors: np.ndarray, count: int = 200) -> Probes:
    cosines = vectors[:count] @ vectors.T
    cosines[np.arange(count), np.arange(count)] = -2
    ids = np.argsort(-cosines, axis=1)[:, :40]
    return Probes(vectors[:count], np.arange(count), ids, np.take_along_axis(cosines, ids, axis=1))


def filled(factory: str) -> object:
    index = create(DIM, factory)
    index.train(VECTORS)
    index.add(VECTORS)
    return index


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, "Flat"),
        (200_000, "Flat"),
        (200_001, "IVF2048,PQ96x4fs,Refine(SQ8)"),  # 4·sqrt = 1789
        (1_000_000, "IVF4096,PQ96x4fs,Refine(SQ8)"),  # 4000
        (10_000_000, "IVF16384,PQ96x4fs,Refine(SQ8)"),  # 12649
    ],
)
def test_auto_is_exact_up_to_200_000_vectors_then_fast_scan_ranked_again(count: int, expected: str) -> None:
    assert choose(count, 384) == expected


def test_a_budget_takes_the_first_code_that_fits_and_still_reaches_the_recall() -> None:
    assert choose(10_000_000, 384, memory=5 * 2**30) == "IVF16384,PQ96x4fs,Refine(SQ8)"
    assert choose(10_000_000, 384, memory=41 * 2**27) == "IVF16384,PQ96x4fs,Refine(SQ8)"
    assert choose(10_000_000, 384, memory=36 * 2**30 // 10) == "IVF16384,PQ96x4fs,Refine(SQ6)"
    assert choose(10_000_000, 384, memory=3 * 2**30, recall=0.9) == "IVF16384,RaBitQ4"
    with pytest.raises(RecipeError, match=r"reaches recall 0\.95 in 3 GiB: .*needs 4\.\d+ GiB.*stays below") as caught:
        choose(10_000_000, 384, memory=3 * 2**30, recall=0.95)
    assert "\n" not in str(caught.value)


def test_an_explicit_factory_is_held_to_the_budget_too() -> None:
    assert choose(1_000_000, 384, "HNSW32,SQ8", memory=2**30) == "HNSW32,SQ8"
    for factory in ("Flat", "IVF1024,Flat", "HNSW32,Flat", "IVF1024,PQ96x4fs,RFlat"):
        with pytest.raises(RecipeError, match=r"needs 1\.[45]\d? GiB .* budget is 1 GiB"):
            choose(1_000_000, 384, factory, memory=2**30)


@pytest.mark.parametrize("factory", ["IVF32,SQ8", "IVF32,PQ4x4fs,Refine(SQ8)", "HNSW8,Flat"])
def test_the_tuned_effort_reaches_the_recall_and_less_does_not(factory: str) -> None:
    index, probes = filled(factory), probes_of(VECTORS)
    effort, measured = tune(index, probes, 0.9, 10)
    assert measured >= 0.9
    found = index.search(VECTORS[:200], 11)[1]  # the index is left at this effort
    hits = [len(set(row[row != own][:10]) & set(probes.ids[own, :10])) for own, row in enumerate(found)]
    assert measured == pytest.approx(np.mean(hits) / 10)

    if effort.nprobe > 1:
        set_effort(index, Effort(nprobe=effort.nprobe // 2))
        assert measure(index, probes, 10)[0] < 0.9
    if effort.efSearch > 16:
        set_effort(index, Effort(efSearch=effort.efSearch // 2))
        assert measure(index, probes, 10)[0] < 0.9


def test_a_refined_index_needs_its_second_ranking() -> None:
    index, probes = filled("IVF8,PQ4x4fs,Refine(SQ8)"), probes_of(VECTORS)
    effort, measured = tune(index, probes, 0.9, 10)
    assert measured > 0.9
    set_effort(index, Effort(nprobe=8, k_factor=1.0))
    assert measure(index, probes, 10)[0] < 0.7
    assert effort.facts() == {"nprobe": effort.nprobe, "k_factor": effort.k_factor}


def test_a_recall_out_of_reach_costs_no_more_effort_than_its_best() -> None:
    index, probes = filled("IVF32,RaBitQ"), probes_of(VECTORS)
    effort, measured = tune(index, probes, 0.99, 10)
    by_effort = {}
    for nprobe in (1, 2, 4, 8, 16, 32):
        set_effort(index, Effort(nprobe=nprobe))
        by_effort[nprobe] = measure(index, probes, 10)[0]
    enough = [nprobe for nprobe, value in by_effort.items() if value >= max(by_effort.values()) - 0.005]
    assert (effort.nprobe, measured) == (enough[0], by_effort[enough[0]])
    assert measured < 0.99


def test_exact_indexes_have_nothing_to_set() -> None:
    assert tune(filled("Flat"), probes_of(VECTORS), 0.95, 10) == (Effort(), 1.0)
    alone = Probes(VECTORS[:1], np.array([0]), np.full((1, 40), -1), np.full((1, 40), -np.inf, dtype=np.float32))
    assert tune(filled("IVF32,SQ8"), alone, 0.95, 10) == (Effort(nprobe=2), 1.0)


def test_maps_and_nonsense_are_refused() -> None:
    with pytest.raises(RecipeError, match="drop the IDMap"):
        choose(100, DIM, "IDMap,Flat")
    with pytest.raises(RecipeError, match="is not usable for 16 dimensions"):
        choose(100, DIM, "IVFoo")
    with pytest.raises(RecipeError, match="64 lists for 60 texts"):
        choose(60, DIM, "IVF64,Flat")
    assert isinstance(create(DIM, "Flat"), faiss.IndexFlat)
