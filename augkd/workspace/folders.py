"""From an empty folder to a finished artefact: begin, write, end; unfinished work for the same inputs is kept.

Every artefact is a folder whose `manifest.json` is written last, so a folder without one is unfinished, whatever killed
the writer. A manifest records the fingerprints of the artefact's inputs, which decide whether it is reused.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augkd.errors import WorkspaceError
from augkd.workspace.checksums import Table, read_signed, write_signed
from augkd.workspace.launch import launch, nothing_finished
from augkd.workspace.manifests import MANIFEST, STATE, read_kind, write_manifest
from augkd.workspace.storage import refuse_url

CACHE = ".cache"  # a folder may hold this before its artefact is begun, and keeps it when that is rebuilt


def begin(folder: Path, kind: str, made_from: Mapping[str, Any]) -> bool:
    """Prepares `folder` for writing this artefact; True when it holds unfinished work for the same inputs.

    Work for other inputs, finished or not, is removed. Raises WorkspaceError for a folder with files that augkd did not
    write, for a finished artefact of another kind, and in a process that others were launched with and that does not
    write: it has looked for what the first one finished.
    """
    refuse_url(folder)
    if not launch().writes:
        raise nothing_finished(kind, folder)
    state = folder / STATE
    inputs = {"kind": kind, "made_from": dict(made_from)}
    for leftover in folder.glob(f".{STATE}.*.tmp"):  # left when this function was killed
        leftover.unlink()
    if state.exists() and not (folder / MANIFEST).exists() and _read_state(state) == inputs:
        for leftover in folder.rglob(".*.tmp"):  # left when a write was killed
            leftover.unlink()
        return True
    if folder.exists() and any(path.name not in (".lock", CACHE) for path in folder.iterdir()):
        if not state.exists() and not (folder / MANIFEST).exists():
            raise WorkspaceError(f"{folder} holds files that augkd did not write; choose another folder for the {kind}")
        if (folder / MANIFEST).exists():
            read_kind(folder, kind)  # refuses to replace an artefact of another kind
        write_signed(state, {"kind": kind, "made_from": None})  # a kill while emptying leaves a folder known as ours
        (folder / MANIFEST).unlink(missing_ok=True)  # first: a half-emptied folder must not look finished
        _empty(folder, keep={state, folder / ".lock", folder / CACHE})
    write_signed(state, inputs)
    return False


def end(folder: Path, kind: str, made_from: Mapping[str, Any], *, files: Table | None = None, **facts: Any) -> None:
    """Writes the manifest, with the checksums in `files` (None: taken now), and removes the mark of unfinished work."""
    write_manifest(folder, kind, made_from, files=files, **facts)
    (folder / STATE).unlink(missing_ok=True)


def _read_state(state: Path) -> dict[str, Any]:
    """The inputs of unfinished work; raises WorkspaceError when they cannot be read, before anything is removed."""
    value = read_signed(state, f"remove {state.parent} and run the same command")
    return {key: inner for key, inner in value.items() if key != "checksum"}


def unfinished(folder: Path) -> bool:
    """Whether work on an artefact was begun in `folder` and not finished."""
    return (folder / STATE).exists() and not (folder / MANIFEST).exists()


def _empty(folder: Path, keep: set[Path]) -> None:
    for path in folder.iterdir():
        if path in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
