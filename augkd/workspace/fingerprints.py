"""Fingerprints: the sha256 of values, files and folders, which decide whether a finished artefact is reused.

Hashing a large index or model takes seconds, and a run asks for the same file several times, so a file is hashed once
in a process for as long as its size, times and inode stay the same.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from augkd.workspace.file_memory import FileMemory

_CLOCK_TICK = 20_000_000  # ns: no less than the step in which the kernel's clock stamps files (10 ms at 100 Hz)


def fingerprint(value: object) -> str:
    """sha256 (hex) of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_fingerprint(path: Path) -> str:
    """sha256 (hex) of a file's bytes; of a folder: of the names and bytes of its files, in name order."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return fingerprint([[p.relative_to(path).as_posix(), file_fingerprint(p)] for p in files])
    state = path.stat()
    age = time.time_ns() - state.st_ctime_ns
    if age < 0:  # stamped by a clock that is ahead of ours: a later change might get the same stamp
        return _sha256(path)
    # A change within the clock tick of the last one would get the same stamp; after it, every change shows in the stat.
    time.sleep(max(_CLOCK_TICK - age, 0) / 1e9)
    return _remembered.of(path, path.stat())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_remembered = FileMemory(_sha256)
