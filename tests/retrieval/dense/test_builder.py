"""Shards that merge into the very same bytes, budgets that refuse before work starts, recall that is what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.seed_encoder import SeedEncoder, files_of, lines

from augkd.data.corpus import CorpusSource
from augkd.errors import IndexFolderError, RecipeError
from augkd.retrieval.dense import builder
from augkd.retrieval.dense.builder import build_index, build_shard, merge_shards
from augkd.retrieval.dense.search import Index, verify
from augkd.retrieval.dense.size import plan
from augkd.retrieval.dense.vectors import make_vectors, read_probes
from augkd.retrieval.spool import encode_parts, spool_of


def shards(tmp_path: Path, source: CorpusSource, count: int, factory: str = "IVF4,SQ8") -> list[Path]:
    folders = [tmp_path / f"shard-{number}" for number in range(1, count + 1)]
    for number, folder in enumerate(folders, 1):
        build_shard(folder, source, SeedEncoder(), (number, count), factory=factory, chunk=50, recipe={"a": 1})
    return folders


@pytest.mark.parametrize("factory", ["auto", "IVF4,SQ8", "IVF4,PQ4x4fs,Refine(SQ8)", "IVF4,PQ8x4fsr,Refine(SQ8)"])
def test_merged_shards_are_byte_identical_to_one_build(tmp_path: Path, factory: str) -> None:
    source = lines(tmp_path, "c.txt", range(330))
    build_index(tmp_path / "whole", source, SeedEncoder(), factory=factory, chunk=50, recipe={"a": 1})
    folders = shards(tmp_path, source, 3, factory)
    assert [len(list((folder / "texts").iterdir())) for folder in folders] == [3, 2, 2]  # of 7 chunks
    merge_shards([folders[2], folders[0], folders[1]], tmp_path / "merged")
    assert files_of(tmp_path / "merged") == files_of(tmp_path / "whole")
    assert len(merge_shards(folders, tmp_path / "merged")) == 330  # finished: opened


def test_a_shard_encodes_its_chunks_only_and_resumes(tmp_path: Path) -> None:
    source = lines(tmp_path, "c.txt", range(330))
    with pytest.raises(KeyboardInterrupt):
        build_shard(tmp_path / "s", source, SeedEncoder(fail_after=1), (1, 2), chunk=50)
    resumed = SeedEncoder()
    build_shard(tmp_path / "s", source, resumed, (1, 2), chunk=50)
    assert resumed.calls == 3  # chunks 0, 2, 4, 6, of which 0 was there
    with pytest.raises(IndexFolderError, match="index-shard"):
        Index.open(tmp_path / "s")


def test_shards_that_do_not_make_a_whole_are_refused(tmp_path: Path) -> None:
    source = lines(tmp_path, "c.txt", range(120))
    first, second = shards(tmp_path, source, 2)
    with pytest.raises(IndexFolderError, match="shard 2/2 is missing"):
        merge_shards([first], tmp_path / "m")
    with pytest.raises(IndexFolderError, match="both shard 1/2"):
        merge_shards([first, first], tmp_path / "m")
    (tmp_path / "other").mkdir()
    foreign = shards(tmp_path / "other", lines(tmp_path, "d.txt", range(121)), 2)[1]
    with pytest.raises(IndexFolderError, match="another build"):
        merge_shards([first, foreign], tmp_path / "m")
    with pytest.raises(IndexFolderError, match="no shard given"):
        merge_shards([], tmp_path / "m")
    part = second / "texts" / "part-00001.arrow"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(IndexFolderError, match=r"part-00001\.arrow is missing or damaged"):
        merge_shards([first, second], tmp_path / "m")
    with pytest.raises(RecipeError, match="shard is 3/2"):
        build_shard(tmp_path / "s", source, SeedEncoder(), (3, 2))


def test_a_build_beyond_the_memory_budget_is_refused_before_a_text_is_encoded(tmp_path: Path) -> None:
    source = lines(tmp_path, "c.txt", range(300))
    encoder = SeedEncoder(fail_after=0)
    with pytest.raises(
        RecipeError, match=r"no index of 300 vectors of 16 reaches .* in 97\.7 KiB: Flat needs"
    ) as caught:
        build_index(tmp_path / "i", source, encoder, memory=100_000)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "i").exists()
    with pytest.raises(KeyboardInterrupt):  # the twin: with the memory it begins
        build_index(tmp_path / "i", source, encoder, memory=2**30)


def test_probes_are_held_out_of_the_training_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = lines(tmp_path, "c.txt", range(2000))
    import faiss

    taken: list[np.ndarray] = []
    real = faiss.IndexIVFScalarQuantizer.train

    def train(self: object, vectors: np.ndarray) -> None:
        taken.append(vectors)
        real(self, vectors)

    monkeypatch.setattr(faiss.IndexIVFScalarQuantizer, "train", train)
    index = build_index(tmp_path / "i", source, SeedEncoder(), factory="IVF4,SQ8", chunk=500)
    probes = read_probes(tmp_path / "i", index.manifest)
    assert probes is not None
    assert len(probes) == 500
    assert len(taken[0]) == 1500
    assert float((probes.queries @ taken[0].T).max()) < 0.999
    own = SeedEncoder().encode(index.texts(probes.own))
    np.testing.assert_allclose((own * probes.queries).sum(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("factory", ["IVF32,SQ8", "IVF32,PQ8x4fsr,Refine(SQ8)"])
def test_a_graph_used_for_adding_changes_hardly_a_list_and_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    class Slim(SeedEncoder):
        dim = 16

    texts = [f"line number {number}" for number in range(3000)]
    encode_parts(tmp_path, texts, Slim(), chunk=1000)
    spool = spool_of(tmp_path, 3000, 16, 1000)
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
    build_index(folder, lines(tmp_path, "c.txt", range(200)), SeedEncoder(), factory="IVF4,SQ8", chunk=100)
    assert verify(folder)["files"] == 4
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("vectors.faiss", "probes.safetensors", *(f"texts/{part}" for part in manifest["texts"])):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]]))
        with pytest.raises(IndexFolderError, match="damaged"):
            verify(folder)
        (folder / name).write_bytes(whole)
    verify(folder)


# ---- auto goes on until the recall is reached ----


@pytest.mark.parametrize(
    ("measured", "made", "final"),
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[float], made: list[int], final: int
) -> None:
    options = plan(10**6, 256).trials()
    assert [option.factory for option in options] == [
        *("IVF4096,PQ64x4fs,Refine(SQ8)", "IVF4096,PQ128x4fsr,Refine(SQ8)", "IVF4096,SQ8")
    ]
    names = [option.factory for option in options]
    tried: list[int] = []

    def make(folder: Path, spool: object, factory: str, recall: float, seed: int) -> dict[str, Any]:
        tried.append(names.index(factory))
        for name in ("vectors.faiss", "probes.safetensors"):
            (folder / name).write_text(factory)
        return {"factory": factory, "recall@10": measured[tried[-1]]}

    monkeypatch.setattr(builder, "make_vectors", make)
    spool = builder.spool_of(tmp_path, 10**6, 256, builder.CHUNK)
    (tmp_path / "build").mkdir()
    found = builder._reaching(tmp_path, spool, options, 0.95, 0)
    assert tried == made
    assert (tmp_path / "vectors.faiss").read_text() == (tmp_path / "probes.safetensors").read_text() == names[final]
    assert (found["factory"], found["recall@10"]) == (names[final], measured[final])
    assert found["memory_plan"]["index"] == options[final].index_bytes


def test_codes_for_memory_budgets_and_exact_search_are_not_followed_by_coarser_ones() -> None:
    assert [option.factory for option in plan(1000, 64).trials()] == ["Flat"]
    tight = plan(10_000_000, 384, memory=36 * 2**30 // 10)
    assert [option.factory for option in tight.trials()] == ["IVF16384,PQ96x4fs,Refine(SQ6)"]
    assert tight.trials(fine=True) == tight.trials()
    assert plan(10**6, 256).trials(fine=True) == plan(10**6, 256).trials()[1:]
    assert plan(1000, 64).trials(fine=True) == plan(1000, 64).trials()
    assert len(plan(10**6, 37).trials(fine=True)) == 1, "a prime dimension has no product code to leave out"
