"""Copies of what lies in storage: whole, compared with the manifest, made once, and again when the object changes."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.manifests import change_manifest
from support.seed_encoder import files_of
from support.storage import change, upload

from augkd.errors import AugkdError, StorageError, WorkspaceError
from augkd.workspace import cache as cache_module
from augkd.workspace.cache import artefact_here, cache_folder, data_here, manifest_here
from augkd.workspace.checksums import STAMP
from augkd.workspace.folders import begin, end
from augkd.workspace.manifests import read_any
from augkd.workspace.storage import Storage

URL = "memory://runs/index"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A finished artefact of three files, with an encoder of one file in its cache."""
    folder = tmp_path / "index"
    begin(folder, "index", {"corpus": "a"})
    (folder / "texts").mkdir()
    for name, size in (("vectors.faiss", 40_000), ("texts/part-00000.arrow", 3000), ("dropped.jsonl", 0)):
        (folder / name).write_bytes(bytes(number % 251 for number in range(size)))
    end(folder, "index", {"corpus": "a"})
    kept = folder / ".cache/static-0123"
    begin(kept, "static_encoder", {"model": "m"})
    (kept / "vectors.safetensors").write_bytes(b"token vectors")
    end(kept, "static_encoder", {"model": "m"})
    return folder


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are downloaded, in order."""
    names: list[str] = []
    blocks = Storage.blocks

    def recorded(self: Storage, name: str | None) -> Iterator[bytes]:
        names.append(str(name))
        return blocks(self, name)

    monkeypatch.setattr(Storage, "blocks", recorded)
    return names


def test_the_copy_has_the_bytes_of_the_artefact_and_of_the_encoder_beside_it(
    cache: Path, index: Path, downloads: list[str]
) -> None:
    copy = artefact_here(upload(index, URL), "index")
    assert copy.name == "index"
    assert copy.is_relative_to(cache)
    assert files_of(copy) == files_of(index)
    assert sorted(downloads) == sorted(name for name in files_of(index) if not name.endswith("manifest.json"))
    assert artefact_here(index, "index") == index, "a folder is used as it is"


def test_a_copy_is_made_once_for_each_state_of_the_artefact(cache: Path, index: Path, downloads: list[str]) -> None:
    first = artefact_here(upload(index, URL))
    downloads.clear()
    assert artefact_here(URL) == first
    assert downloads == []

    (index / "vectors.faiss").write_bytes(b"other vectors")
    end(index, "index", {"corpus": "b"})
    second = artefact_here(upload(index, URL))
    assert second != first
    assert (second / "vectors.faiss").read_bytes() == b"other vectors"
    assert (first / "vectors.faiss").stat().st_size == 40_000


@pytest.mark.parametrize("name", ["vectors.faiss", "texts/part-00000.arrow", ".cache/static-0123/vectors.safetensors"])
def test_a_flipped_byte_in_storage_is_refused_by_name(cache: Path, index: Path, name: str) -> None:
    before = change(f"{upload(index, URL)}/{name}")
    with pytest.raises(StorageError, match=f"{URL}/{name} is damaged: its checksum"):
        artefact_here(URL)
    change(f"{URL}/{name}", before[:-1])
    with pytest.raises(StorageError, match=f"{URL}/{name} is damaged: it has {len(before) - 1:,} bytes"):
        artefact_here(URL)
    change(f"{URL}/{name}", before)
    assert files_of(artefact_here(URL)) == files_of(index)


def test_a_changed_manifest_in_storage_is_refused(cache: Path, index: Path) -> None:
    upload(index, URL)
    content = change(f"{URL}/manifest.json", (index / "manifest.json").read_bytes().replace(b'"a"', b'"b"'))
    with pytest.raises(StorageError, match=f"{URL}/manifest.json is damaged"):
        artefact_here(URL)
    with pytest.raises(StorageError, match=f"{URL}/manifest.json is damaged"), manifest_here(URL) as folder:
        read_any(folder)
    change(f"{URL}/manifest.json", content)
    assert artefact_here(URL).is_dir()


def test_what_is_no_finished_artefact_of_the_kind_is_refused(cache: Path, index: Path) -> None:
    with pytest.raises(StorageError, match=r"memory://nothing has no manifest\.json"):
        artefact_here("memory://nothing")
    with pytest.raises(StorageError, match="holds augkd's index, not augkd's transfer_set"):
        artefact_here(upload(index, URL), "transfer_set")
    artefact_here(URL, "index")
    with pytest.raises(StorageError, match="holds augkd's index, not augkd's transfer_set"):
        artefact_here(URL, "transfer_set")


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", ".hidden", "a:b", "nul"])
def test_no_name_of_a_manifest_leaves_the_copy(cache: Path, index: Path, tmp_path: Path, name: str) -> None:
    change_manifest(index, files={name: {"bytes": 1, "xxh3": "0" * 16}})
    with pytest.raises(WorkspaceError, match="cannot be the name of a file"):
        artefact_here(upload(index, URL))
    assert not list(tmp_path.rglob("outside"))


def test_an_interrupted_download_continues_with_the_files_that_are_missing(
    cache: Path, index: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_AT_ONCE", 1)
    blocks = Storage.blocks

    def interrupted(self: Storage, name: str | None) -> Iterator[bytes]:
        if len(downloads) == 2:
            raise KeyboardInterrupt
        return blocks(self, name)

    upload(index, URL)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "blocks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            artefact_here(URL)
    done = list(downloads)
    assert not list(cache.rglob("manifest.json")), "an unfinished copy does not look finished"
    assert not list(cache.rglob("*.tmp"))

    copy = artefact_here(URL)
    assert len(done) == 2
    assert sorted(downloads) == sorted(set(downloads)), "no file was downloaded twice"
    assert files_of(copy) == files_of(index)


def test_a_file_that_was_damaged_in_an_unfinished_copy_is_downloaded_again(cache: Path, index: Path) -> None:
    copy = artefact_here(upload(index, URL))
    (copy / "manifest.json").unlink()
    (copy / "vectors.faiss").write_bytes(bytes(40_000))
    assert files_of(artefact_here(URL)) == files_of(index)


def test_a_disk_without_room_is_refused_before_anything_is_downloaded(
    cache: Path, index: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augkd.workspace.disk.free_bytes", lambda path: 43_000)
    with pytest.raises(WorkspaceError, match=r"too little room for a copy of memory://runs/index \(set AUGKD_CACHE"):
        artefact_here(upload(index, URL))
    assert downloads == []


def test_progress_is_in_megabytes_and_ends_with_all_of_them(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augkd.workspace.storage._BLOCK", 1_000_000)
    (tmp_path / "big.txt").write_bytes(b"x" * 2_500_000)
    seen: list[Any] = []
    data_here(upload(tmp_path / "big.txt", "memory://big.txt"), lambda name: True, lambda *step: seen.append(step))
    assert seen == [("download big.txt (MB)", done, 3) for done in (1, 2, 3)]


def _copy(url: str, content: dict[str, bytes], queue: Any) -> None:
    import fsspec

    for name, value in content.items():
        fsspec.filesystem("memory").pipe_file(name, value)
    names: list[str] = []
    blocks = Storage.blocks
    Storage.blocks = lambda self, name: (names.append(str(name)), blocks(self, name))[1]  # type: ignore[method-assign]
    artefact_here(url)
    queue.put(names)


def test_two_processes_make_one_copy(cache: Path, index: Path) -> None:
    content = {f"/runs/index/{name}": value for name, value in files_of(index).items()}
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    processes = [fork.Process(target=_copy, args=(URL, content, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    downloaded = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert [len(names) for names in downloaded] == [0, 4]
    (copy,) = cache.rglob("vectors.faiss")
    assert files_of(copy.parent) == files_of(index)


# ---- data files ----


def wanted(name: str) -> bool:
    return name.endswith(".txt")


def test_a_changed_object_is_another_copy_and_an_unchanged_one_is_not_read_again(
    cache: Path, tmp_path: Path, downloads: list[str]
) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "sub").mkdir(parents=True)
    (corpus / "a.txt").write_text("one\n")
    (corpus / "sub/b.txt").write_text("two\n")
    (corpus / "c.bin").write_text("other")
    first = data_here(upload(corpus, "memory://corpus"), wanted)
    assert first is not None
    assert first.name == "corpus"
    assert files_of(first) == {"a.txt": b"one\n", "sub/b.txt": b"two\n"}
    downloads.clear()
    assert data_here("memory://corpus", wanted) == first
    assert downloads == []

    change("memory://corpus/a.txt", b"ONE\n")  # of the same size
    second = data_here("memory://corpus", wanted)
    assert second is not None
    assert files_of(second) == {"a.txt": b"ONE\n", "sub/b.txt": b"two\n"}
    assert data_here("memory://empty", wanted) is None


def test_a_single_object_is_a_file(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    copy = data_here(upload(tmp_path / "a.txt", "memory://corpora/a.txt"), wanted)
    assert copy is not None
    assert (copy.name, copy.read_text()) == ("a.txt", "one\n")


def test_a_copy_that_was_damaged_since_is_refused_with_what_to_remove(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    copy = data_here(upload(tmp_path / "a.txt", "memory://a.txt"), wanted)
    assert copy is not None
    copy.write_text("two\n")
    with pytest.raises(WorkspaceError, match=f"{copy} is damaged.*remove {copy.parent} and run the same command"):
        data_here("memory://a.txt", wanted)
    shutil.rmtree(copy.parent)
    assert data_here("memory://a.txt", wanted) == copy


def test_an_object_that_changes_while_it_is_copied_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    upload(tmp_path / "a.txt", "memory://a.txt")
    blocks = Storage.blocks

    def changing(self: Storage, name: str | None) -> Iterator[bytes]:
        yield from blocks(self, name)
        change("memory://a.txt", b"two\n")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "blocks", changing)
        with pytest.raises(StorageError, match=r"memory://a.txt changed while it was copied"):
            data_here("memory://a.txt", wanted)
    copy = data_here("memory://a.txt", wanted)
    assert copy is not None
    assert copy.read_text() == "two\n"


def test_an_object_whose_name_cannot_be_a_file_here_is_refused(cache: Path) -> None:
    storage = Storage.at("memory://corpus")
    storage._client.store["/corpus/.. /a.txt"] = storage._client.open("/corpus/x", "wb")
    with pytest.raises(AugkdError, match="cannot be the name of a file"):
        data_here("memory://corpus", wanted)


def test_a_copy_records_its_address_and_checksums(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    copy = data_here(upload(tmp_path / "a.txt", "memory://a.txt"), wanted)
    assert copy is not None
    record = json.loads((copy.parent / "copy.json").read_text())
    assert record["url"] == "memory://a.txt"
    assert record["files"] == {"a.txt": {"bytes": 4, "xxh3": record["files"]["a.txt"]["xxh3"]}}
    assert not (copy.parent / STAMP).exists()


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGKD_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    monkeypatch.delenv("AUGKD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/augkd")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/augkd")
