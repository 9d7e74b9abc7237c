"""Folders that can be trusted: fingerprints, write-then-rename, manifests, one writer at a time.

Every artefact is a folder whose `manifest.json` is written last, so a folder without one is unfinished, whatever killed
the writer. A manifest says what the artefact was made from (fingerprints), and that decides whether it is used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from augkd.errors import WorkspaceError

FORMAT = 1  # raised when an older augkd could misread what a newer one wrote
MANIFEST = "manifest.json"
CACHE = ".cache"  # what an artefact's folder may hold before it is begun, and keeps when it is made anew
_LIBRARIES = ("augkd", "torch", "transformers", "sentence-transformers", "faiss-cpu", "datasets", "pyarrow", "numpy")


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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary neighbour of `path`; on success it is flushed to disk and renamed to `path`, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `path` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON; raises WorkspaceError when the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing; the folder is unfinished or not one of augkd's") from None
    except (OSError, ValueError) as exc:
        raise WorkspaceError(f"{path} cannot be read ({exc}); remove the folder and run again") from exc


def write_manifest(folder: Path, kind: str, made_from: Mapping[str, Any], **facts: Any) -> None:
    """Marks `folder` as a finished artefact of `kind` (`index`, `teacher`, `transfer_set`, `student`, `run`).

    `made_from` holds the fingerprints of all inputs; `facts` (recipe, seeds, counts) are kept beside it.
    """
    value = {"format": FORMAT, "kind": kind, "made_from": dict(made_from), **facts, "versions": versions()}
    write_json(folder / MANIFEST, value)


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of a finished artefact; raises WorkspaceError when missing, foreign or from a newer augkd."""
    if not (folder / MANIFEST).exists():
        state = "is unfinished (no manifest.json)" if folder.exists() else "does not exist"
        raise WorkspaceError(f"{kind} folder {folder} {state}; run the command that builds it again")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        found = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        raise WorkspaceError(f"{folder} holds {shown_kind(found)}, not augkd's {kind}; give the {kind} folder")
    if manifest.get("format", 0) > FORMAT:
        raise WorkspaceError(
            f"{folder} has format {manifest['format']}, this augkd reads up to {FORMAT}; upgrade augkd"
        )
    return manifest


def shown_kind(kind: object) -> str:
    """How a manifest's kind reads in a message."""
    return f"augkd's {kind}" if isinstance(kind, str) else "something unknown"


def finished(folder: Path, kind: str, made_from: Mapping[str, Any]) -> bool:
    """Whether `folder` already holds exactly this artefact (same kind, same inputs)."""
    if not (folder / MANIFEST).exists():
        return False
    return bool(read_manifest(folder, kind)["made_from"] == dict(made_from))


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


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process; a second augkd in the same folder is refused at once.

    The lock is the kernel's (flock), so a killed process leaves none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceError(f"another augkd is working in {folder}; wait for it or choose another --out") from None
        yield


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Waits until no other process makes what lies in `folder`, and keeps others waiting meanwhile.

    For what several runs share: who comes second finds it finished. The lock is the kernel's; its file, beside the
    folder, goes with it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name}.lock"
    while True:
        with path.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if not _is_file_of(path, stream.fileno()):
                continue  # who had it removed it: another may hold the file that is there now
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_file_of(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
