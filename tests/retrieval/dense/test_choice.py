"""Which FAISS index is chosen for a corpus, and which factories and memory budgets are rejected."""

from __future__ import annotations

import faiss
import pytest

from augkd.errors import RecipeError
from augkd.retrieval.dense.choice import choose, create

DIM = 16


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
def test_auto_is_exact_up_to_200_000_vectors_then_a_re_ranked_fast_scan(count: int, expected: str) -> None:
    assert choose(count, 384) == expected


def test_a_memory_budget_takes_the_first_code_that_fits_and_still_reaches_the_recall() -> None:
    assert choose(10_000_000, 384, memory=5 * 2**30) == "IVF16384,PQ96x4fs,Refine(SQ8)"
    assert choose(10_000_000, 384, memory=41 * 2**27) == "IVF16384,PQ96x4fs,Refine(SQ8)"
    assert choose(10_000_000, 384, memory=36 * 2**30 // 10) == "IVF16384,PQ96x4fs,Refine(SQ6)"
    assert choose(10_000_000, 384, memory=3 * 2**30, recall=0.9) == "IVF16384,RaBitQ4"
    with pytest.raises(RecipeError, match=r"reaches recall 0\.95 in 3 GiB: .*needs 4\.\d+ GiB.*stays below") as caught:
        choose(10_000_000, 384, memory=3 * 2**30, recall=0.95)
    assert "\n" not in str(caught.value)


def test_an_explicit_factory_is_held_to_the_memory_budget_too() -> None:
    assert choose(1_000_000, 384, "HNSW32,SQ8", memory=2**30) == "HNSW32,SQ8"
    for factory in ("Flat", "IVF1024,Flat", "HNSW32,Flat", "IVF1024,PQ96x4fs,RFlat"):
        with pytest.raises(RecipeError, match=r"needs 1\.[45]\d? GiB .* budget is 1 GiB"):
            choose(1_000_000, 384, factory, memory=2**30)


def test_id_maps_and_invalid_factories_are_refused() -> None:
    with pytest.raises(RecipeError, match="drop the IDMap"):
        choose(100, DIM, "IDMap,Flat")
    with pytest.raises(RecipeError, match="is not usable for 16 dimensions"):
        choose(100, DIM, "IVFoo")
    with pytest.raises(RecipeError, match="64 lists for 60 texts"):
        choose(60, DIM, "IVF64,Flat")


@pytest.mark.parametrize("factory", ["OPQ16,IVF8,PQ16", "OPQ8_8,PQ8", "OPQ16,IVF8,PQ16,Refine(SQ8)"])
def test_a_rotation_is_not_learned_from_fewer_texts_than_faiss_asks_for(factory: str) -> None:
    with pytest.raises(RecipeError, match=r"learns a rotation \(OPQ\), which takes 9,984 texts or more, not 500"):
        choose(500, DIM, factory)
    assert choose(9_984, DIM, factory) == factory
    assert choose(500, DIM, factory.split(",", 1)[1]) == factory.split(",", 1)[1], "without the rotation"


def test_other_factories_are_created() -> None:
    assert isinstance(create(DIM, "Flat"), faiss.IndexFlat)
