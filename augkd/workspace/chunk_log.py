"""Checksums of the chunks that wait in a spool, one line a chunk, appended when its files are complete.

A build may wait for days between two chunks, so what it wrote is compared before it goes into an index. A chunk without
a line is encoded again; a line that a kill cut off counts as none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xxhash

from augkd.errors import WorkspaceError
from augkd.workspace.checksums import entry_of
from augkd.workspace.disk import writing

CHUNK_LOG = "chunks.jsonl"
Entries = dict[str, dict[str, Any]]  # by path in the folder: a table of augkd.workspace.checksums


def log_path(folder: Path) -> Path:
    """The log of the spool in `folder`."""
    return folder / "build" / CHUNK_LOG


def record_chunk(folder: Path, paths: Iterable[Path]) -> Entries:
    """Appends the checksums of a chunk's files; returns them."""
    entries = {path.relative_to(folder).as_posix(): entry_of(path) for path in paths}
    text, path = json.dumps(entries), log_path(folder)
    with writing(path), path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":  # a kill cut the last line off
                recorded_chunks(folder)
        stream.write(f"{xxhash.xxh3_64_hexdigest(text.encode())} {text}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())
    return entries


def recorded_chunks(folder: Path) -> Entries:
    """The checksums of all chunks; raises WorkspaceError for a damaged log. What a kill cut off is removed from it."""
    path = log_path(folder)
    entries: Entries = {}
    if not path.exists():
        return {}
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        os.truncate(path, len(whole))
    for line in whole.splitlines():
        digest, _, text = line.partition(b" ")
        if digest.decode("ascii", "replace") != xxhash.xxh3_64_hexdigest(text):
            raise WorkspaceError(f"{path} is damaged; remove {path.parent} and run the same command")
        entries |= json.loads(text)
    return entries
