"""Files on the Hub, as `hf://` URLs: read from a stand-in for the Hub on this machine, in a process that knows it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

REPO = "/api/datasets/me/data"
FILES = {"corpus/a.txt": b"one\ntwo\n", "corpus/sub/b.txt": b"three\n", "README.md": b"# data\n"}


def entries(below: str) -> list[dict[str, Any]]:
    """What the Hub says of the folder `below`, at every depth."""
    found: dict[str, dict[str, Any]] = {}
    for name, content in FILES.items():
        if not name.startswith(f"{below}/" if below else ""):
            continue
        for above in list(Path(name).parents)[:-1]:
            if len(above.as_posix()) > len(below):
                found[str(above)] = {"type": "directory", "oid": "1" * 40, "size": 0, "path": str(above)}
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        found[name] = {"type": "file", "oid": oid, "size": len(content), "path": name}
    return list(found.values())


class Hub(BaseHTTPRequestHandler):
    """One data set with FILES."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        file = path.removeprefix("/datasets/me/data/resolve/main/")
        if path in (REPO, f"{REPO}/revision/main"):
            self._send(json.dumps({"id": "me/data", "sha": "0" * 40, "tags": []}).encode())
        elif path.startswith(f"{REPO}/tree/main") and (listed := entries(path[len(REPO) + 10 :].strip("/"))):
            whole = "recursive=true" in self.path
            depth = min(entry["path"].count("/") for entry in listed)
            self._send(json.dumps([e for e in listed if whole or e["path"].count("/") == depth]).encode())
        elif file in FILES:
            first, last = (int(place) for place in self.headers["Range"].removeprefix("bytes=").split("-"))
            self._send(FILES[file][first : last + 1], 206)
        else:
            self._send(b"{}", 404, "EntryNotFound" if path.startswith(REPO) else "RepoNotFound")

    def _send(self, body: bytes, status: int = 200, error: str = "") -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), ("X-Error-Code", error)):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


CODE = """
import sys
from augkd.data.tables import local_path
from augkd.errors import AugkdError
for url in sys.argv[1:]:
    try:
        path = local_path(url)
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        print([[file.relative_to(path.parent).as_posix(), file.read_text()] for file in files])
    except AugkdError as exc:
        print(exc)
"""


def test_a_folder_a_file_and_a_revision_of_a_data_set_are_read(hub: str, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "AUGKD_CACHE": str(tmp_path)}
    home = "hf://datasets/me/data"
    urls = [f"{home}/corpus", f"{home}/corpus/a.txt", f"{home}@main/corpus", f"{home}/nothing"]
    command = [sys.executable, "-c", CODE, *urls]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
    folder = [["corpus/a.txt", "one\ntwo\n"], ["corpus/sub/b.txt", "three\n"]]
    lines = done.stdout.splitlines()
    assert lines[:3] == [str(folder), str([["a.txt", "one\ntwo\n"]]), str(folder)], done.stderr
    assert lines[3].startswith(f"{home}/nothing has no data file")
