"""Adding and removing texts: what is found, what is deleted from disk, what a kill leaves, what is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pytest
from support.seed_encoder import SeedEncoder, files_of, lines

from augkd.data.corpus import CorpusSource
from augkd.errors import IndexFolderError
from augkd.retrieval.dense import changes
from augkd.retrieval.dense.changes import Added, add_texts, remove_texts
from augkd.retrieval.dense.held_out import read_queries
from augkd.retrieval.dense.search import Index
from augkd.retrieval.engines.local import build_dense
from augkd.retrieval.manifest import index_identity
from augkd.workspace.checksums import signed_text
from augkd.workspace.verify import verify

FACTORIES = ("Flat", "SQ8", "IVF8,SQ8", "IVF8,PQ4x4fs,Refine(SQ8)", "IVF8,PQ8x4fsr,Refine(SQ8)", "IVF8,RaBitQ")


def built(tmp_path: Path, factory: str, count: int = 400) -> Path:
    build_dense(tmp_path / "i", lines(tmp_path, "c.txt", range(count)), SeedEncoder(), factory=factory, chunk=150)
    return tmp_path / "i"


def all_texts(index: Index) -> list[str]:
    return index.texts(range(len(index)))


@pytest.mark.parametrize("factory", FACTORIES)
def test_ids_stay_rows_after_adding_and_removing(tmp_path: Path, factory: str) -> None:
    folder = built(tmp_path, factory)
    more = lines(tmp_path, "d.txt", range(380, 500))
    assert add_texts(folder, more, SeedEncoder(), chunk=50) == Added(added=100, duplicates=20)
    takedown = ["LINE number: 7", "line number 399", "line number 499", "line number 1000"]
    assert remove_texts(folder, takedown) == 3

    index = Index.open(folder)
    expected = [f"line number {n}" for n in range(500) if n not in (7, 399, 499)]
    assert all_texts(index) == expected
    # every list visited and every candidate re-ranked: the rest of the loss is that of the codes themselves
    vectors = faiss.read_index(str(folder / index.manifest.vectors))
    if (ivf := faiss.try_extract_index_ivf(vectors)) is not None:
        ivf.nprobe = ivf.nlist
    if isinstance(vectors, faiss.IndexRefine):
        vectors.k_factor = 400
    nearest = vectors.search(SeedEncoder().encode(expected), 1)[1][:, 0]
    share = float((nearest == np.arange(len(expected))).mean())
    assert share == 1.0 if "RaBitQ" not in factory else share > 0.5
    assert verify(folder).files == len(files_of(folder)) - 1  # all but the manifest: no stray file


@pytest.mark.parametrize("factory", ["IVF8,SQ8", "IVF8,PQ4x4fs,Refine(SQ8)", "IVF8,PQ8x4fsr,Refine(SQ8)"])
def test_no_byte_of_a_removed_text_or_its_codes_is_left(tmp_path: Path, factory: str) -> None:
    folder = built(tmp_path, factory)
    removed_texts = [f"line number {number}" for number in (3, 200, 399)]
    assert all(any(text.encode() in content for content in files_of(folder).values()) for text in removed_texts)
    remove_texts(folder, removed_texts)
    for content in files_of(folder).values():
        assert not any(f"{text}line" in content.decode("latin1") for text in removed_texts)
    index = Index.open(folder)
    assert len(index) == 397
    assert index.search(SeedEncoder().encode(removed_texts), 1)[0].max() < 0.98
    vectors = faiss.read_index(str(folder / index.manifest.vectors))
    lists = faiss.downcast_InvertedLists(faiss.try_extract_index_ivf(vectors).invlists)
    if not isinstance(lists, faiss.BlockInvertedLists):
        return
    for number in range(lists.nlist):  # no code is left after the last vector of a list that lost some
        size = lists.list_size(number)
        blocks = -(-size // 32)
        raw = faiss.rev_swig_ptr(lists.get_codes(number), blocks * lists.block_size).reshape(blocks, -1)
        tail = [lists.packer.unpack_1(raw, slot) for slot in range(size, blocks * 32)]
        assert not np.any(tail)


def test_recall_is_measured_again_against_the_true_neighbours(tmp_path: Path) -> None:
    folder = built(tmp_path, "IVF8,SQ8")
    add_texts(folder, lines(tmp_path, "d.txt", range(400, 600)), SeedEncoder())
    remove_texts(folder, [f"line number {n}" for n in range(0, 600, 9)])

    index = Index.open(folder)
    queries = read_queries(folder, index.manifest)
    assert queries is not None
    texts = all_texts(index)
    vectors = SeedEncoder().encode(texts).astype(np.float16).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = queries.vectors @ vectors.T
    cosines[np.arange(len(queries)), queries.own] = -2
    assert queries.ids[:, :10].tolist() == np.argsort(-cosines, axis=1)[:, :10].tolist()
    ids = index.search(queries.vectors, 11)[1]
    rows = zip(ids, queries.own, queries.ids[:, :10], strict=True)
    shared = [len(set(row[row != own][:10]) & set(true)) for row, own, true in rows]
    assert index.manifest.recall == pytest.approx(np.mean(shared) / 10, abs=1e-4)
    assert [change["change"] for change in index.manifest.changes] == ["add", "remove"]
    assert index.manifest.count == len(texts) == 600 - 67


def test_an_interrupted_add_leaves_the_old_index_and_continues(tmp_path: Path) -> None:
    folder = built(tmp_path, "IVF8,SQ8")
    before = files_of(folder)
    more = lines(tmp_path, "d.txt", range(400, 500))
    with pytest.raises(KeyboardInterrupt):
        add_texts(folder, more, SeedEncoder(fail_after=2), chunk=30)
    assert {name: value for name, value in files_of(folder).items() if not name.startswith("change")} == before
    assert len(Index.open(folder)) == 400

    resumed = SeedEncoder()
    assert add_texts(folder, more, resumed, chunk=30).added == 100
    assert resumed.calls == 2  # 30 + 30 were done; 30 + 10 were not
    assert len(Index.open(folder)) == 500


@pytest.mark.parametrize("change", ["add", "remove"])
@pytest.mark.parametrize("at", ["write_vectors", "rewrite_manifest", "_sweep"])
def test_a_kill_anywhere_leaves_the_old_or_the_new_index(
    tmp_path: Path, change: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = built(tmp_path, "IVF8,SQ8")
    more = lines(tmp_path, "d.txt", range(400, 420))

    def act() -> None:
        if change == "add":
            add_texts(folder, more, SeedEncoder())
        else:
            remove_texts(folder, ["line number 5"])

    calls = 0
    real = getattr(changes, at)

    def killed(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if at == "_sweep" and calls == 1:  # the sweep before the work
            return real(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(changes, at, killed)
        with pytest.raises(KeyboardInterrupt):
            act()
    old, new = 400, 420 if change == "add" else 399
    assert len(Index.open(folder)) == (new if at == "_sweep" else old)
    assert not verify(folder).damaged
    act()
    assert len(Index.open(folder)) == new
    assert verify(folder).files == len(files_of(folder)) - 1


def test_a_changed_index_is_finished_for_its_recipe_and_never_replaced(tmp_path: Path) -> None:
    folder = built(tmp_path, "Flat")
    before = Index.open(folder).manifest
    remove_texts(folder, ["line number 5"])
    source = CorpusSource(str(tmp_path / "c.txt"))
    same = build_dense(folder, source, SeedEncoder(fail_after=0), factory="Flat", chunk=150)
    assert len(same) == 399
    assert same.manifest.made_from == before.made_from
    assert index_identity(same.manifest) != index_identity(before)
    with pytest.raises(IndexFolderError, match="1 changes"):
        build_dense(folder, source, SeedEncoder(), factory="SQ8", chunk=150)
    assert len(Index.open(folder)) == 399


def test_what_cannot_be_changed_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = built(tmp_path, "HNSW8,Flat", 60)
    other = SeedEncoder()
    other.fingerprint = "other"
    with pytest.raises(IndexFolderError, match="another encoder"):
        add_texts(folder, CorpusSource(str(tmp_path / "c.txt")), other)
    with pytest.raises(IndexFolderError, match="cannot remove"):
        remove_texts(folder, ["line number 5"])
    with pytest.raises(IndexFolderError, match="without a text"):
        remove_texts(folder, [f"line number {n}" for n in range(60)])
    before = json.loads((folder / "manifest.json").read_text())
    assert remove_texts(folder, ["nothing like it", ""]) == 0
    assert json.loads((folder / "manifest.json").read_text()) == before


@pytest.mark.parametrize("signed", [False, True])
def test_a_part_that_the_manifest_misnames_is_not_swept_away(tmp_path: Path, signed: bool) -> None:
    """One wrong character, 00000 → 00010, and the real part was deleted before the change was refused."""
    folder = tmp_path / "index"
    build_dense(folder, lines(tmp_path, "c.txt", range(120)), SeedEncoder(), factory="IVF4,SQ8", chunk=50)
    path = folder / "manifest.json"
    text = path.read_text()
    manifest = json.loads(text.replace('"part-00000.arrow"', '"part-00010.arrow"'))  # among its texts, not its files
    assert set(manifest["texts"]) == {"part-00010.arrow", "part-00001.arrow", "part-00002.arrow"}
    path.write_text(signed_text(manifest) if signed else json.dumps(manifest))
    before = files_of(folder)
    with pytest.raises(IndexFolderError, match=r"manifest\.json (names texts/part-00010\.arrow, which|is damaged)"):
        remove_texts(folder, ["line number 3"])
    with pytest.raises(IndexFolderError, match=r"manifest\.json (names texts/part-00010\.arrow, which|is damaged)"):
        add_texts(folder, lines(tmp_path, "d.txt", [500]), SeedEncoder())
    assert files_of(folder) == before
