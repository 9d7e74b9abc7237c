"""Estimated bytes against measured ones, and plans against the formula written out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import faiss
import numpy as np
import pytest

from augkd.retrieval.dense.size import Constants, auto_lists, describe, plan_index, subquantisers
from augkd.retrieval.dense.speed import measure_constants

CONSTANTS = Constants(384, flops=1e11, graph_seconds=5e-5, code_seconds=2e-6, disk_bytes=1e9, texts=600)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("dim", [32, 48])
def test_estimated_bytes_are_within_two_percent_of_the_file(tmp_path: Path, number: int, dim: int) -> None:
    count = 60_000
    vectors = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
    faiss.normalize_L2(vectors)
    options = (
        plan_index(count, dim).options
        if number == 0
        else [o for o in plan_index(count, dim).options if o.factory != "Flat"]
    )
    option = options[number]
    index = faiss.index_factory(dim, option.factory, faiss.METRIC_INNER_PRODUCT)
    if (ivf := faiss.try_extract_index_ivf(index)) is not None:
        ivf.cp.niter = 1
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "i"))
    assert option.index_bytes == pytest.approx((tmp_path / "i").stat().st_size, rel=0.02)


def test_the_plan_is_the_formula() -> None:
    n, d = 1_000_000, 384
    option = plan_index(n, d, constants=CONSTANTS).options[0]
    lists, sample = 4096, 64 * 4096
    assert option.factory == "IVF4096,PQ96x4fs,Refine(SQ8)"
    size = n * (48 + 384 + 8) + lists * (4 * d + 8) + 48 * 16 * lists + 64 * d + 8 * d
    assert option.index_bytes == size
    assert option.build_bytes == max(size + 4 * d * 6 * 16384, 4 * d * (sample + 100_000 + 3 * lists))
    assert option.disk_bytes == size + 2 * d * n
    assert option.seconds["encode"] == pytest.approx(n / 600)
    assert option.seconds["assign"] == pytest.approx(n * lists * 2 * d / 1e11)
    assert option.seconds["train"] == pytest.approx(10 * sample * lists * 2 * d / 1e11)
    assert plan_index(10**8, d, constants=CONSTANTS).options[0].seconds["assign"] == pytest.approx(
        1e8 * 5e-5 * math.log(32768) / math.log(16384)
    )


def test_less_memory_means_a_smaller_code_until_none_reaches_the_recall() -> None:
    big = plan_index(10**8, 384, recall=0.7).options
    sizes = [option.build_bytes for option in big]
    picks = [
        plan_index(10**8, 384, memory, 0.7).chosen
        for memory in (None, sizes[0], sizes[0] - 1, sizes[-1], sizes[-1] - 1)
    ]
    assert [pick and pick.factory.split(",", 1)[1] for pick in picks] == [
        "PQ96x4fs,Refine(SQ8)",
        "PQ96x4fs,Refine(SQ8)",
        "SQ8",
        "RaBitQ",
        None,
    ]
    accurate = plan_index(10**8, 384, sizes[-1], 0.95)
    assert accurate.chosen is None
    assert accurate.machines == math.ceil(min(o.build_bytes for o in big if o.ceiling >= 0.95) / sizes[-1])
    assert plan_index(10**6, 384, recall=0.999).chosen.factory == "Flat"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("count", "expected"), [(200_001, 2048), (1_000_000, 4096), (10_000_000, 16384), (10_000, 256)]
)
def test_lists_are_the_power_of_two_nearest_four_roots_with_enough_training_points(count: int, expected: int) -> None:
    assert auto_lists(count) == expected


@pytest.mark.parametrize(("dim", "expected"), [(384, 96), (768, 192), (50, 10), (37, 1), (3, 1)])
def test_subquantisers_divide_the_dimension(dim: int, expected: int) -> None:
    assert subquantisers(dim) == expected
    assert ("PQ" in plan_index(10**6, dim).options[0].factory) == (dim // expected <= 8)


def test_a_plan_for_five_billion_vectors_in_256_gib_states_how_many_machines_they_need() -> None:
    lines = list(describe(plan_index(5_000_000_000, 384, 256 * 2**30, 0.95, CONSTANTS)))
    assert lines[0].startswith("5,000,000,000 vectors of 384, recall@10 0.95, memory 256 GiB")
    assert any("n·(code + id 8 + refine)" in line for line in lines)
    assert lines[-1].startswith("nothing fits; 7 machines")
    assert "chosen: IVF" in list(describe(plan_index(10**6, 384)))[-1]
    assert "no known factory reaches" in list(describe(plan_index(10**9, 384, None, 1.01)))[-1]


def test_constants_are_positive_and_texts_are_timed_only_with_an_encoder() -> None:
    measured = measure_constants(8)
    assert min(measured.flops, measured.graph_seconds, measured.code_seconds, measured.disk_bytes) > 0
    assert math.isnan(measured.texts)
