"""Manifests for folders that a test makes by hand: complete ones, of which a test gives what it is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from augkd.workspace.checksums import table_of
from augkd.workspace.manifests import MANIFEST, rewrite_manifest, write_manifest

SHA256 = "0" * 64
_SOURCES: dict[str, dict[str, Any]] = {
    "index": {"corpus": "c", "encoder": "e", "faiss": {"recall": 0.95}},
    "student": {"task": "a" * 64, "transfer_set": "b" * 64, "student": {}},
}
_FACTS: dict[str, dict[str, Any]] = {
    "index": {
        **{"recipe": None, "seed": 0, "encoder": {"kind": "sentence", "model": "a/b"}, "corpus": {"kept": 5}},
        **{"count": 5, "dim": 4, "factory": "Flat", "nprobe": 0, "recall@10": 1.0, "bytes_per_vector": 16.0},
        **{"sha256": SHA256, "vectors": "vectors.faiss", "texts": {"part-00000.arrow": "0" * 16}, "changes": []},
    },
    "teacher": {"rows": {}, "seconds": 1.0},
    "transfer_set": {
        **{"data": {"originals": 0, "candidates": 0}, "task": "polls", "labels": ["a", "b"]},
        **{"teacher_rows": 0, "generator_rows": 0, "seconds": 1.0},
    },
    "student": {
        **{"recipe": {}, "rows": {}, "parameters": 1, "validation": 0.5, "test": None, "test_interval": None},
        **{"seconds": 1.0, "peak_rss_bytes": 1},
    },
    "run": {"recipe": {}, "seed": 0},
}


def change_manifest(folder: Path, **changes: Any) -> None:
    """Changes facts of a manifest as its writer would: with a signature that fits."""
    written = json.loads((folder / MANIFEST).read_text())
    rewrite_manifest(folder, written | changes)


def sign_again(folder: Path) -> None:
    """Lists the files of a folder anew, after a test has changed them as their writer would have."""
    change_manifest(folder, files=table_of(folder))


def complete_manifest(folder: Path, kind: str, made_from: dict[str, Any] | None = None, **facts: Any) -> None:
    """Writes a manifest of `kind` whose facts are `facts` over plausible ones."""
    write_manifest(folder, kind, _SOURCES.get(kind, {}) | (made_from or {}), **_FACTS[kind] | facts)
