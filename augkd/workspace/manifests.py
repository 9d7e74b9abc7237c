"""The manifest of an artefact, written last: a folder without one is unfinished, whatever killed the writer.

It records the format version, the fingerprints of all inputs, the recipe, seeds, counts and library versions.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augkd.errors import WorkspaceError
from augkd.workspace.files import read_json, write_json

FORMAT = 1  # raised when an older augkd could misread what a newer one wrote
MANIFEST = "manifest.json"
_LIBRARIES = ("augkd", "torch", "transformers", "sentence-transformers", "faiss-cpu", "datasets", "pyarrow", "numpy")


def write_manifest(folder: Path, kind: str, made_from: Mapping[str, Any], **facts: Any) -> None:
    """Marks `folder` as a finished artefact of `kind` (`index`, `teacher`, `transfer_set`, `student`, `run`).

    `made_from` holds the fingerprints of all inputs; `facts` (recipe, seeds, counts) are stored beside it.
    """
    value = {"format": FORMAT, "kind": kind, "made_from": dict(made_from), **facts, "versions": versions()}
    write_json(folder / MANIFEST, value)


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of a finished artefact; raises WorkspaceError when it is missing, foreign or from a newer augkd."""
    if not (folder / MANIFEST).exists():
        state = "is unfinished (no manifest.json)" if folder.exists() else "does not exist"
        raise WorkspaceError(f"{kind} folder {folder} {state}; run the command that builds it again")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        actual = manifest.get("kind") if isinstance(manifest, dict) else None
        raise WorkspaceError(f"{folder} holds {describe_kind(actual)}, not augkd's {kind}; give the {kind} folder")
    if manifest.get("format", 0) > FORMAT:
        raise WorkspaceError(
            f"{folder} has format {manifest['format']}, this augkd reads up to {FORMAT}; upgrade augkd"
        )
    return manifest


def describe_kind(kind: object) -> str:
    """The kind of a manifest as a message names it."""
    return f"augkd's {kind}" if isinstance(kind, str) else "something unknown"


def finished(folder: Path, kind: str, made_from: Mapping[str, Any]) -> bool:
    """Whether `folder` already holds exactly this artefact (same kind, same inputs)."""
    if not (folder / MANIFEST).exists():
        return False
    return bool(read_manifest(folder, kind)["made_from"] == dict(made_from))


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    installed = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
