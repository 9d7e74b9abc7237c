"""sha256 of values, files and folders: what decides whether a finished artefact is used again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def fingerprint(value: object) -> str:
    """sha256 (hex) of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_fingerprint(path: Path) -> str:
    """sha256 (hex) of a file's bytes; of a folder: of its files' names and bytes, in name order."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return fingerprint([[p.relative_to(path).as_posix(), file_fingerprint(p)] for p in files])
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
