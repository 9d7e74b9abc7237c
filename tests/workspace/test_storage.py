"""URLs of object storage: which are read, that none is written, and that no credential reaches a message."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from augkd.errors import StorageError
from augkd.workspace.folders import begin
from augkd.workspace.locks import locked
from augkd.workspace.storage import Storage, refuse_url, url_of, without_credentials

SIGNED = "https://bucket.s3.amazonaws.com/x?X-Amz-Credential=AKID&X-Amz-Signature=5ec3e7"


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("s3://bucket/index/", "s3://bucket/index"),
        ("S3://bucket/index", "s3://bucket/index"),
        (Path("s3://bucket/index"), "s3://bucket/index"),  # Path has made one slash of two
        ("hf://datasets/owner/name@main/data", "hf://datasets/owner/name@main/data"),
        ("memory://a", "memory://a"),
        ("runs/index", None),
        ("owner/name", None),
        ("s3:/bucket", None),  # a path, as a text
        (Path("/s3:/bucket"), None),
        (Path("s3:"), None),
        (Path(), None),
        ("augkd:docstrings", None),
    ],
)
def test_a_url_is_recognised_in_every_form_and_a_path_is_none(place: str | Path, url: str | None) -> None:
    assert url_of(place) == url


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "simplecache::s3://bucket/x", "s3://bucket/../x", "s3:///x", "s3://a//b"]
)
def test_other_schemes_and_odd_parts_are_refused(url: str) -> None:
    with pytest.raises(StorageError):
        url_of(url)


@pytest.mark.parametrize(
    "url", ["s3://AKID:5ec3e7@bucket/x", SIGNED, "s3://bucket/x?X-Amz-Signature=5ec3e7", "gs://u%405ec3e7@b/x"]
)
def test_a_url_with_credentials_is_refused_without_showing_them(url: str) -> None:
    with pytest.raises(StorageError) as refused:
        url_of(url)
    assert "5ec3e7" not in str(refused.value)
    assert "AKID" not in str(refused.value)


def test_messages_of_other_libraries_lose_credentials_and_queries() -> None:
    message = f"403 for '{SIGNED}' and s3://AKID:5ec3e7@bucket/key at http://127.0.0.1:9000/b"
    assert without_credentials(message) == (
        "403 for 'https://bucket.s3.amazonaws.com/x' and s3://bucket/key at http://127.0.0.1:9000/b"
    )


def test_nothing_is_written_to_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("s3://bucket/run")
    for write in (lambda: refuse_url(out), lambda: begin(out, "index", {}), lambda: locked(out).__enter__()):
        with pytest.raises(StorageError, match=r"s3://bucket/run cannot be written.*copy it when finished"):
            write()
    assert list(tmp_path.iterdir()) == [], "no folder called s3:"
    assert refuse_url(tmp_path) == tmp_path


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="the package is installed")
def test_a_missing_client_is_one_line_with_the_command_that_installs_it() -> None:
    with pytest.raises(StorageError, match=r"gs://bucket/x needs the package gcsfs: pip install 'augkd\[gcs\]'"):
        Storage.at("gs://bucket/x")


def test_a_prefix_of_another_name_is_not_a_folder(cache: Path) -> None:
    storage = Storage.at("memory://corpus")
    storage._client.pipe_file("/corpus-2/a.txt", b"a")
    assert storage.files() == []
    assert [file.name for file in Storage.at("memory://corpus-2").files()] == ["a.txt"]


def test_an_object_that_is_written_again_has_another_state(cache: Path) -> None:
    storage = Storage.at("memory://corpus")
    storage._client.pipe_file("/corpus/a.txt", b"a")
    (before,) = storage.files()
    assert storage.files() == [before]
    storage._client.pipe_file("/corpus/a.txt", b"b")
    assert storage.files() != [before]
