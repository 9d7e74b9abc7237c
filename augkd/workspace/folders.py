"""From an empty folder to a finished artefact: begin, write, end; unfinished work for the same inputs is kept.

Every artefact is a folder whose `manifest.json` is written last, so a folder without one is unfinished, whatever killed
the writer. A manifest says what the artefact was made from (fingerprints), and that decides whether it is used again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augkd.errors import WorkspaceError
from augkd.workspace.files import read_json, write_json
from augkd.workspace.manifests import MANIFEST, read_manifest, write_manifest

CACHE = ".cache"  # what an artefact's folder may hold before it is begun, and keeps when it is made anew


def begin(folder: Path, kind: str, made_from: Mapping[str, Any]) -> bool:
    """Prepares `folder` for writing this artefact; True when earlier unfinished work for the same inputs is there.

    Work for other inputs, finished or not, is removed; a folder holding files that are not augkd's is refused.
    """
    state = folder / "building.json"
    wanted = {"kind": kind, "made_from": dict(made_from)}
    for leftover in folder.glob(".building.json.*.tmp"):  # of a kill in this function
        leftover.unlink()
    if state.exists() and not (folder / MANIFEST).exists() and read_json(state) == wanted:
        for leftover in folder.rglob(".*.tmp"):  # of a killed write
            leftover.unlink()
        return True
    if folder.exists() and any(path.name not in (".lock", CACHE) for path in folder.iterdir()):
        if not state.exists() and not (folder / MANIFEST).exists():
            raise WorkspaceError(f"{folder} holds files that augkd did not write; choose another folder for the {kind}")
        if (folder / MANIFEST).exists():
            read_manifest(folder, kind)  # refuses to replace an artefact of another kind
        write_json(state, {"kind": kind, "made_from": None})  # a kill while emptying leaves a folder known as ours
        (folder / MANIFEST).unlink(missing_ok=True)  # before the rest: a half-removed folder must not look finished
        _empty(folder, keep={state, folder / ".lock", folder / CACHE})
    write_json(state, wanted)
    return False


def end(folder: Path, kind: str, made_from: Mapping[str, Any], **facts: Any) -> None:
    """Writes the manifest and drops the mark of unfinished work."""
    write_manifest(folder, kind, made_from, **facts)
    (folder / "building.json").unlink(missing_ok=True)


def _empty(folder: Path, keep: set[Path]) -> None:
    for path in folder.iterdir():
        if path in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
