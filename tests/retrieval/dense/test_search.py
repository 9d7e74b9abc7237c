"""Searching a dense index: exact against brute force, tuned to a recall, refused when damaged."""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest

from augkd.data.corpus import CorpusSource
from augkd.errors import IndexFolderError
from augkd.retrieval.dense.search import Index
from augkd.retrieval.engines.local import build_dense
from augkd.workspace import checksums
from augkd.workspace.file_memory import FileMemory

DIM = 16


class HashEncoder:
    """Unit vectors from hashed character trigrams."""

    name = "hash"
    dim = DIM
    fingerprint = "hash-16"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> np.ndarray:
        total = np.zeros(DIM, dtype=np.float32)
        for start in range(len(text) + 2):
            gram = f"  {text}  "[start : start + 3]
            total += np.random.default_rng(zlib.crc32(gram.encode())).standard_normal(DIM).astype(np.float32)
        return total / np.linalg.norm(total)


def corpus(folder: Path, count: int) -> CorpusSource:
    path = folder / "corpus.jsonl"
    rng = np.random.default_rng(0)
    words = ["river", "moon", "paris", "jazz", "bread", "atom", "queen", "tiger", "violin", "snow"]
    texts = [f"{' '.join(rng.choice(words, 3))} {number}" for number in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts[:5], "", *texts[5:]]))
    return CorpusSource(str(path))


def texts_of(source: CorpusSource) -> list[str]:
    rows = [json.loads(line)["text"] for line in Path(source.dataset).read_text().splitlines()]
    return [text for text in rows if text]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CorpusSource:
    return corpus(tmp_path_factory.mktemp("corpus"), 100)


@pytest.fixture(scope="module")
def folder(source: CorpusSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "flat"
    build_dense(path, source, HashEncoder(), chunk=32, recipe={"name": "test"})
    return path


def test_flat_search_equals_brute_force(folder: Path, source: CorpusSource) -> None:
    index = Index.open(folder)
    stored = HashEncoder().encode(texts_of(source)).astype(np.float16).astype(np.float32)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    queries = HashEncoder().encode(["moon river", "queen of paris 7"])

    scores, ids = index.search(queries, 10)

    expected = queries @ stored.T
    assert ids.tolist() == np.argsort(-expected, axis=1)[:, :10].tolist()
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :10], atol=1e-6)


def test_texts_come_from_the_right_part_in_the_asked_order(folder: Path, source: CorpusSource) -> None:
    index = Index.open(folder)
    texts = texts_of(source)
    assert len(list((folder / "texts").iterdir())) == 4  # 32 + 32 + 32 + 4
    ids = [96, 31, 32, 0, 99, 64, 63, 31]
    assert index.texts(ids) == [texts[id_] for id_ in ids]
    assert index.texts(range(100)) == texts
    assert index.texts([]) == []
    with pytest.raises(IndexError, match="outside index"):
        index.texts([-1])


def test_the_manifest_describes_the_build(folder: Path) -> None:
    index = Index.open(folder)
    assert (len(index), index.dim, index.encoder_name) == (100, DIM, "hash")
    manifest = index.manifest.on_disk()
    assert (manifest["count"], manifest["factory"], manifest["nprobe"], manifest["recall@10"]) == (100, "Flat", 0, 1.0)
    assert manifest["corpus"]["kept"] == 100
    assert manifest["corpus"]["empty"] == 1
    assert manifest["recipe"] == {"name": "test"}
    assert manifest["bytes_per_vector"] == pytest.approx(4 * DIM, abs=1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "dropped.jsonl",
        "manifest.json",
        "texts",
        "vectors.faiss",
    ]


def test_an_inverted_file_stores_the_recall_and_nprobe_it_was_tuned_to(tmp_path: Path) -> None:
    source = corpus(tmp_path, 1200)
    index = build_dense(tmp_path / "index", source, HashEncoder(), factory="IVF16,SQ8", recall=0.9, chunk=500)
    nprobe, measured = index.manifest.nprobe, index.manifest.recall
    assert 1 <= nprobe <= 16
    assert 0.9 <= measured <= 1

    vectors = HashEncoder().encode(texts_of(source)).astype(np.float32)
    exact = vectors @ vectors.T
    np.fill_diagonal(exact, -1)
    truth = np.argsort(-exact, axis=1)[:, :10]
    hits = index.search(vectors, 11)[1]
    shared = [len(set(ids[ids != row][:10]) & set(truth[row])) for row, ids in enumerate(hits)]
    assert np.mean(shared) / 10 == pytest.approx(measured, abs=0.05)  # measured on 300 of the 1200

    if nprobe > 1:  # the twin: half the lists do not reach it
        half = faiss.read_index(str(tmp_path / "index" / "vectors.faiss"))
        half.nprobe = nprobe // 2
        fewer = [len(set(i[i != r][:10]) & set(truth[r])) for r, i in enumerate(half.search(vectors, 11)[1])]
        assert np.mean(fewer) < np.mean(shared)


def damaged(folder: Path, tmp_path: Path, name: str, position: int) -> Path:
    for path, content in files_of(folder).items():
        target = tmp_path / "copy" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    content = bytearray((tmp_path / "copy" / name).read_bytes())
    content[position] ^= 0xFF
    (tmp_path / "copy" / name).write_bytes(content)
    return tmp_path / "copy"


@pytest.mark.parametrize("position", [0, 40, -1])
def test_damaged_vectors_are_refused_before_faiss_reads_them(
    folder: Path, tmp_path: Path, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("FAISS read a damaged file"))
    with pytest.raises(IndexFolderError, match=r"vectors\.faiss is damaged: .*that made it again") as caught:
        Index.open(damaged(folder, tmp_path, "vectors.faiss", position))
    assert "\n" not in str(caught.value)


def test_missing_parts_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = damaged(folder, tmp_path, "texts/part-00000.arrow", -1)
    with pytest.raises(IndexFolderError, match=r"part-00000\.arrow is damaged"):
        Index.open(copy)
    (copy / "texts" / "part-00000.arrow").unlink()
    with pytest.raises(IndexFolderError, match=r"part-00000\.arrow is missing"):
        Index.open(copy)
    shutil.copy(folder / "texts" / "part-00000.arrow", copy / "texts")
    (copy / "vectors.faiss").unlink()
    with pytest.raises(IndexFolderError, match=r"vectors\.faiss is missing"):
        Index.open(copy)
    with pytest.raises(IndexFolderError, match="does not exist"):
        Index.open(tmp_path / "nowhere")


def test_queries_of_another_dimension_are_refused(folder: Path) -> None:
    with pytest.raises(IndexFolderError, match=r"holds vectors of 16.*encode them with hash"):
        Index.open(folder).search(np.zeros((1, 8), dtype=np.float32), 1)


@pytest.mark.parametrize(
    "factory", ["Flat", "IVF4,SQ8", "IVF4,PQ4x4fs,Refine(SQ8)", "IVF4,PQ8x4fsr,Refine(SQ8)", "IVF4,RaBitQ"]
)
def test_vectors_are_returned_with_their_neighbours(tmp_path: Path, factory: str) -> None:
    source = corpus(tmp_path, 300)
    index = build_dense(tmp_path / "index", source, HashEncoder(), factory=factory, chunk=150)
    encoded = HashEncoder().encode(texts_of(source))

    scores, ids, vectors = index.search_and_reconstruct(encoded[:20], 5)

    assert ids.tolist() == index.search(encoded[:20], 5)[1].tolist()
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=2), 1, atol=1e-5)
    cosines = (vectors * encoded[ids]).sum(axis=2)
    assert cosines.min() > (0.5 if "RaBitQ" in factory else 0.999)
    if "RaBitQ" not in factory:
        np.testing.assert_allclose((vectors * encoded[:20, None]).sum(axis=2), scores, atol=0.02)


def test_a_bare_fast_scan_cannot_reconstruct_vectors(tmp_path: Path) -> None:
    index = build_dense(tmp_path / "index", corpus(tmp_path, 100), HashEncoder(), factory="IVF4,PQ4x4fs", chunk=50)
    with pytest.raises(IndexFolderError, match="cannot reconstruct its vectors"):
        index.search_and_reconstruct(HashEncoder().encode(["moon"]), 2)


def test_a_large_file_is_hashed_once_until_it_or_its_place_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    hashed: list[Path] = []
    real = checksums.checksum
    memory = FileMemory(lambda path: hashed.append(path) or real(path))
    monkeypatch.setattr(checksums, "_remembered", memory)
    time.sleep(0.05)  # until a change would show in the time of change
    files = len(json.loads((copy / "manifest.json").read_text())["files"])

    def hashed_in_a_new_process(place: Path) -> int:
        hashed.clear()
        memory.clear()
        Index.open(place)
        return len(hashed)

    assert [hashed_in_a_new_process(copy) for _ in range(2)] == [files, files]  # small: every time
    Index.open(copy)
    assert len(hashed) == files  # and once in a process
    monkeypatch.setattr(checksums, "REMEMBERED_FROM", 1)
    assert [hashed_in_a_new_process(copy) for _ in range(2)] == [files, 0]

    shutil.copytree(copy, tmp_path / "again")  # the stamp is copied too, but records another inode
    time.sleep(0.05)  # a file as new as that is hashed without being remembered
    assert hashed_in_a_new_process(tmp_path / "again") == files
    content = bytearray((copy / "vectors.faiss").read_bytes())
    content[-1] ^= 1
    status = (copy / "vectors.faiss").stat()
    (copy / "vectors.faiss").write_bytes(content)
    os.utime(copy / "vectors.faiss", ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same mtime
    with pytest.raises(IndexFolderError, match="is damaged"):
        Index.open(copy)
