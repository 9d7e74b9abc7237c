"""The manifest of a finished index, dense or lexical."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkd.errors import IndexFolderError, WorkspaceError
from augkd.workspace.manifests import read_manifest

if TYPE_CHECKING:
    pass


def read_index_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an index folder; raises IndexFolderError when it is missing or foreign."""
    try:
        return read_manifest(folder, "index")
    except WorkspaceError as exc:
        raise IndexFolderError(str(exc)) from exc
