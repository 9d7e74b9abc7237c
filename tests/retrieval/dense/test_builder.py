"""The common part of every build: held-out queries, the centroid graph, and how auto goes on until the recall."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.seed_encoder import SeedEncoder, lines

from augkd.errors import IndexFolderError
from augkd.retrieval.build import verify_index
from augkd.retrieval.dense import builder
from augkd.retrieval.dense.held_out import read_queries
from augkd.retrieval.dense.size import plan_index
from augkd.retrieval.dense.vectors import make_vectors
from augkd.retrieval.engines.local import build_dense
from augkd.retrieval.spool import CHUNK, encode_parts, open_spool


def test_held_out_queries_are_not_in_the_training_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = lines(tmp_path, "c.txt", range(2000))
    import faiss

    samples: list[np.ndarray] = []
    real = faiss.IndexIVFScalarQuantizer.train

    def train(self: object, vectors: np.ndarray) -> None:
        samples.append(vectors)
        real(self, vectors)

    monkeypatch.setattr(faiss.IndexIVFScalarQuantizer, "train", train)
    index = build_dense(tmp_path / "i", source, SeedEncoder(), factory="IVF4,SQ8", chunk=500)
    queries = read_queries(tmp_path / "i", index.manifest)
    assert queries is not None
    assert len(queries) == 500
    assert len(samples[0]) == 1500
    assert float((queries.vectors @ samples[0].T).max()) < 0.999
    own = SeedEncoder().encode(index.texts(queries.own))
    np.testing.assert_allclose((own * queries.vectors).sum(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("factory", ["IVF32,SQ8", "IVF32,PQ8x4fsr,Refine(SQ8)"])
def test_a_graph_used_for_adding_changes_hardly_a_list_and_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    class Slim(SeedEncoder):
        dim = 16

    texts = [f"line number {number}" for number in range(3000)]
    encode_parts(tmp_path, texts, Slim(), chunk=1000)
    spool = open_spool(tmp_path, 3000, 16, 1000)
    (tmp_path / "exact").mkdir()
    (tmp_path / "graph").mkdir()
    exact = make_vectors(tmp_path / "exact", spool, factory, 0.9, 0)
    monkeypatch.setattr("augkd.retrieval.dense.vectors.GRAPH_ABOVE", 16)
    graph = make_vectors(tmp_path / "graph", spool, factory, 0.9, 0)
    assert graph["bytes_per_vector"] == exact["bytes_per_vector"]
    assert graph["recall@10"] == pytest.approx(exact["recall@10"], abs=0.02)
    again = make_vectors(tmp_path / "graph", spool, factory, 0.9, 0)
    assert again == graph


def test_verify_finds_a_flipped_bit_in_any_file(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    build_dense(folder, lines(tmp_path, "c.txt", range(200)), SeedEncoder(), factory="IVF4,SQ8", chunk=100)
    assert verify_index(folder).startswith("5 files")
    manifest = json.loads((folder / "manifest.json").read_text())
    names = ("vectors.faiss", "held_out_queries.safetensors", *(f"texts/{part}" for part in manifest["texts"]))
    for name in (*names, "manifest.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]]))
        with pytest.raises(IndexFolderError, match=f"{name} is damaged"):
            verify_index(folder)
        (folder / name).write_bytes(whole)
    verify_index(folder)


# ---- auto goes on until the recall is reached ----


@pytest.mark.parametrize(
    ("measured", "built", "final"),
    [
        ([0.96], [0], 0),
        ([0.90, 0.95], [0, 1], 1),
        ([0.90, 0.93, 0.92], [0, 1, 2], 1),  # none does: the best
        ([0.90, 0.91, 0.92], [0, 1, 2], 2),
        ([0.92, 0.92, 0.91], [0, 1, 2], 0),
        ([0.949, 0.949, 0.957], [0, 1, 2], 2),  # seen: 5 million noisy vectors, whose 8-bit table bounds both of two
    ],
)
def test_auto_takes_the_first_factory_that_reaches_the_recall_when_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[float], built: list[int], final: int
) -> None:
    options = plan_index(10**6, 256).trials()
    assert [option.factory for option in options] == [
        *("IVF4096,PQ64x4fs,Refine(SQ8)", "IVF4096,PQ128x4fsr,Refine(SQ8)", "IVF4096,SQ8")
    ]
    names = [option.factory for option in options]
    tried: list[int] = []

    def make(folder: Path, spool: object, factory: str, recall: float, seed: int) -> dict[str, Any]:
        tried.append(names.index(factory))
        for name in ("vectors.faiss", "held_out_queries.safetensors"):
            (folder / name).write_text(factory)
        return {"factory": factory, "recall@10": measured[tried[-1]]}

    monkeypatch.setattr(builder, "make_vectors", make)
    spool = open_spool(tmp_path, 10**6, 256, CHUNK)
    (tmp_path / "build").mkdir()
    facts = builder._make_until_reached(tmp_path, spool, options, 0.95, 0)
    assert tried == built
    assert (
        (tmp_path / "vectors.faiss").read_text()
        == (tmp_path / "held_out_queries.safetensors").read_text()
        == names[final]
    )
    assert (facts["factory"], facts["recall@10"]) == (names[final], measured[final])
    assert facts["memory_plan"]["index"] == options[final].index_bytes


def test_codes_for_memory_budgets_and_exact_search_are_not_followed_by_coarser_ones() -> None:
    assert [option.factory for option in plan_index(1000, 64).trials()] == ["Flat"]
    tight = plan_index(10_000_000, 384, memory=36 * 2**30 // 10)
    assert [option.factory for option in tight.trials()] == ["IVF16384,PQ96x4fs,Refine(SQ6)"]
    assert tight.trials(fine=True) == tight.trials()
    assert plan_index(10**6, 256).trials(fine=True) == plan_index(10**6, 256).trials()[1:]
    assert plan_index(1000, 64).trials(fine=True) == plan_index(1000, 64).trials()
    assert len(plan_index(10**6, 37).trials(fine=True)) == 1, "a prime dimension has no product code to leave out"
