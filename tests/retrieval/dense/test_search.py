"""Building an index and reading it: exact against brute force, whole after a kill, refused when damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest

from augkd.data.corpus import CorpusSource
from augkd.errors import AugkdError, DataError, IndexFolderError, RecipeError
from augkd.retrieval.dense import search as indexes
from augkd.retrieval.dense.builder import build_index
from augkd.retrieval.dense.search import Index

DIM = 16


class HashEncoder:
    """Unit vectors from hashed character trigrams; may fail, or be killed, after some calls."""

    name = "hash"
    dim = DIM
    fingerprint = "hash-16"

    def __init__(self, fail_after: int | None = None, kill: bool = False) -> None:
        self.calls = 0
        self.fail_after = fail_after
        self.kill = kill

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if self.calls == self.fail_after:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        self.calls += 1
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
    build_index(path, source, HashEncoder(), chunk=32, recipe={"name": "test"})
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


def test_the_manifest_says_what_was_built(folder: Path) -> None:
    index = Index.open(folder)
    assert (len(index), index.dim, index.encoder_name) == (100, DIM, "hash")
    manifest = index.manifest
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
    index = build_index(tmp_path / "index", source, HashEncoder(), factory="IVF16,SQ8", recall=0.9, chunk=500)
    nprobe, measured = index.manifest["nprobe"], index.manifest["recall@10"]
    assert 1 <= nprobe <= 16
    assert 0.9 <= measured <= 1

    vectors = HashEncoder().encode(texts_of(source)).astype(np.float32)
    exact = vectors @ vectors.T
    np.fill_diagonal(exact, -1)
    truth = np.argsort(-exact, axis=1)[:, :10]
    found = index.search(vectors, 11)[1]
    hits = [len(set(ids[ids != row][:10]) & set(truth[row])) for row, ids in enumerate(found)]
    assert np.mean(hits) / 10 == pytest.approx(measured, abs=0.05)  # measured on 300 of the 1200

    if nprobe > 1:  # the twin: half the lists do not reach it
        half = faiss.read_index(str(tmp_path / "index" / "vectors.faiss"))
        half.nprobe = nprobe // 2
        fewer = [len(set(i[i != r][:10]) & set(truth[r])) for r, i in enumerate(half.search(vectors, 11)[1])]
        assert np.mean(fewer) < np.mean(hits)


@pytest.mark.parametrize("factory", ["auto", "IVF4,SQ8"])
@pytest.mark.parametrize("fail_after", [0, 1, 3])
def test_an_interrupted_build_resumes_and_ends_byte_identical(tmp_path: Path, factory: str, fail_after: int) -> None:
    source = corpus(tmp_path, 200)
    build_index(tmp_path / "whole", source, HashEncoder(), factory=factory, chunk=50)
    with pytest.raises(KeyboardInterrupt):
        build_index(tmp_path / "cut", source, HashEncoder(fail_after), factory=factory, chunk=50)
    with pytest.raises(IndexFolderError, match="unfinished"):
        Index.open(tmp_path / "cut")

    resumed = HashEncoder()
    build_index(tmp_path / "cut", source, resumed, factory=factory, chunk=50)

    assert resumed.calls == 4 - fail_after
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_part_without_its_vectors_is_encoded_again(tmp_path: Path) -> None:
    source = corpus(tmp_path, 200)
    build_index(tmp_path / "whole", source, HashEncoder(), chunk=50)
    with pytest.raises(KeyboardInterrupt):
        build_index(tmp_path / "cut", source, HashEncoder(2), chunk=50)
    (tmp_path / "cut" / "build" / "vectors-00001.npy").unlink()
    (tmp_path / "cut" / "texts" / ".part-00002.arrow.1.tmp").write_bytes(b"half")

    resumed = HashEncoder()
    build_index(tmp_path / "cut", source, resumed, chunk=50)

    assert resumed.calls == 3
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_build_killed_with_sigkill_resumes_and_ends_byte_identical(tmp_path: Path) -> None:
    source = corpus(tmp_path, 200)
    build_index(tmp_path / "whole", source, HashEncoder(), factory="IVF4,SQ8", chunk=50)
    program = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]\n"
        "from pathlib import Path\n"
        "from test_search import CorpusSource, HashEncoder, build_index\n"
        f"build_index(Path({str(tmp_path / 'cut')!r}), CorpusSource({source.dataset!r}), HashEncoder(2, kill=True), "
        "factory='IVF4,SQ8', chunk=50)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()

    resumed = HashEncoder()
    build_index(tmp_path / "cut", source, resumed, factory="IVF4,SQ8", chunk=50)

    assert resumed.calls == 2
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_finished_build_is_opened_not_redone_and_another_one_replaces_it(tmp_path: Path) -> None:
    source = corpus(tmp_path, 60)
    build_index(tmp_path / "index", source, HashEncoder(), chunk=50)
    again = HashEncoder(fail_after=0)
    assert len(build_index(tmp_path / "index", source, again, chunk=50)) == 60
    assert again.calls == 0

    other = HashEncoder()
    other.fingerprint = "hash-other"
    build_index(tmp_path / "index", source, other, chunk=50)
    assert other.calls == 2


def test_progress_ends_at_the_count(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    build_index(tmp_path / "index", corpus(tmp_path, 60), HashEncoder(), chunk=25, progress=lambda *at: told.append(at))
    assert told == [(25, None), (50, None), (60, None)]


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
    with pytest.raises(IndexFolderError, match=r"vectors\.faiss is damaged: .*build it again") as caught:
        Index.open(damaged(folder, tmp_path, "vectors.faiss", position))
    assert "\n" not in str(caught.value)


def test_missing_parts_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = damaged(folder, tmp_path, "texts/part-00000.arrow", -1)
    with pytest.raises(IndexFolderError, match=r"part-00000\.arrow cannot be read"):
        Index.open(copy)
    (copy / "texts" / "part-00000.arrow").unlink()
    with pytest.raises(IndexFolderError, match=r"part-00000\.arrow cannot be read"):
        Index.open(copy)
    (copy / "vectors.faiss").unlink()
    with pytest.raises(IndexFolderError, match="is missing"):
        Index.open(copy)
    with pytest.raises(IndexFolderError, match="does not exist"):
        Index.open(tmp_path / "nowhere")


def test_queries_of_another_dimension_are_refused(folder: Path) -> None:
    with pytest.raises(IndexFolderError, match=r"holds vectors of 16.*encode them with hash"):
        Index.open(folder).search(np.zeros((1, 8), dtype=np.float32), 1)


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text('{"text": ""}\n')
    with pytest.raises(DataError, match="no usable text"):
        build_index(tmp_path / "index", CorpusSource(str(path)), HashEncoder())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factory": "IVFoo"}, "factory 'IVFoo' is not usable"),
        ({"factory": "IDMap,Flat"}, "drop the IDMap"),
        ({"factory": "IVF64,Flat"}, "has 64 lists for 60 texts"),
        ({"recall": 0.0}, "recall is 0.0"),
    ],
)
def test_unusable_options_are_refused_in_one_line(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build_index(tmp_path / "index", corpus(tmp_path, 60), HashEncoder(), **options)
    assert isinstance(caught.value, AugkdError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "factory", ["Flat", "IVF4,SQ8", "IVF4,PQ4x4fs,Refine(SQ8)", "IVF4,PQ8x4fsr,Refine(SQ8)", "IVF4,RaBitQ"]
)
def test_vectors_come_back_with_their_neighbours(tmp_path: Path, factory: str) -> None:
    source = corpus(tmp_path, 300)
    index = build_index(tmp_path / "index", source, HashEncoder(), factory=factory, chunk=150)
    encoded = HashEncoder().encode(texts_of(source))

    scores, ids, vectors = index.search_and_reconstruct(encoded[:20], 5)

    assert ids.tolist() == index.search(encoded[:20], 5)[1].tolist()
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=2), 1, atol=1e-5)
    cosines = (vectors * encoded[ids]).sum(axis=2)
    assert cosines.min() > (0.5 if "RaBitQ" in factory else 0.999)
    if "RaBitQ" not in factory:
        np.testing.assert_allclose((vectors * encoded[:20, None]).sum(axis=2), scores, atol=0.02)


def test_a_bare_fast_scan_says_that_it_keeps_no_vectors(tmp_path: Path) -> None:
    index = build_index(tmp_path / "index", corpus(tmp_path, 100), HashEncoder(), factory="IVF4,PQ4x4fs", chunk=50)
    with pytest.raises(IndexFolderError, match="cannot give its vectors back"):
        index.search_and_reconstruct(HashEncoder().encode(["moon"]), 2)


def test_a_large_file_is_hashed_once_until_it_or_its_place_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    hashed: list[Path] = []
    real = indexes.file_fingerprint
    monkeypatch.setattr(indexes, "file_fingerprint", lambda path: hashed.append(path) or real(path))

    Index.open(copy)
    Index.open(copy)
    assert len(hashed) == 2  # small: every time
    monkeypatch.setattr(indexes, "REMEMBERED_FROM", 1)
    Index.open(copy)
    Index.open(copy)
    assert len(hashed) == 3

    shutil.copytree(copy, tmp_path / "again")  # the stamp goes along, but speaks of another inode
    Index.open(tmp_path / "again")
    assert len(hashed) == 4
    content = bytearray((copy / "vectors.faiss").read_bytes())
    content[-1] ^= 1
    status = (copy / "vectors.faiss").stat()
    (copy / "vectors.faiss").write_bytes(content)
    os.utime(copy / "vectors.faiss", ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same mtime
    with pytest.raises(IndexFolderError, match="is damaged"):
        Index.open(copy)


def test_the_folder_of_0_1_still_opens(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    for key in ("texts", "vectors", "changes"):
        del manifest[key]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert Index.open(copy).texts([99]) == Index.open(folder).texts([99])
