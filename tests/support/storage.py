"""Object storage for tests: fsspec's own in memory, and a server that speaks S3 on this machine (moto)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

BUCKET = "s3://bucket"
SECRET = "wJalrXUtnFEMI-secret"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test, and an empty storage in memory."""
    monkeypatch.setenv("AUGKD_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """The client of an S3 server on this machine with one empty bucket; clients find it by the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        client = fsspec.filesystem("s3")
        client.mkdir("bucket")
        yield client
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def upload(folder: Path, url: str) -> str:
    """Copies a file, or all files of a folder, hidden ones too, to `url`; returns it."""
    client, root = fsspec.core.url_to_fs(url)
    if folder.is_file():
        client.pipe_file(root, folder.read_bytes())
    for path in folder.rglob("*"):
        if path.is_file() and path.name != ".lock":
            client.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


def change(url: str, content: bytes | None = None) -> bytes:
    """Replaces an object, by default by itself with the bits of its last byte flipped; returns what was there."""
    client, root = fsspec.core.url_to_fs(url)
    before: bytes = client.cat_file(root)
    client.pipe_file(root, before[:-1] + bytes([before[-1] ^ 255]) if content is None else content)
    return before
