"""The manifest of a finished index, dense or lexical: what can be known without opening the index.

It decides whether two indexes give the same neighbours, and names the encoder that queries need. No weights are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augkd.errors import IndexFolderError, WorkspaceError
from augkd.workspace.manifests import read_manifest


def read_index_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an index folder; raises IndexFolderError when it is missing or belongs to something else."""
    try:
        return read_manifest(folder, "index")
    except WorkspaceError as exc:
        raise IndexFolderError(str(exc)) from exc


def is_lexical(manifest: Mapping[str, Any]) -> bool:
    """Whether the index finds words (BM25) and not vectors."""
    return bool(manifest["encoder"].get("kind") == "lexical")


def index_identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the neighbours that an index finds: its sources, its bytes, and the depth of re-ranking."""
    rerank = (manifest.get("recipe") or {}).get("encoder", {}).get("rerank", 0)
    return {"made_from": manifest["made_from"], "sha256": manifest["sha256"], "rerank": rerank}


def encoder_options(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder table of the index's recipe; defaults: kind `sentence`, no re-ranking."""
    recipe = manifest.get("recipe") or {"encoder": manifest["encoder"]}  # built by a library call, without a recipe
    defaults = {"kind": "sentence", "max_length": None, "precision": "auto", "rerank": 0}
    return {**defaults, **recipe["encoder"]}
